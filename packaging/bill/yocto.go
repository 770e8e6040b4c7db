package main

import (
	"crypto/md5" //nolint:gosec // what LIC_FILES_CHKSUM takes
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const notice = "# Written by `go run ./packaging/bill yocto` from go.mod; a test fails when it is stale.\n\n"

// recipeFiles are the include files of the recipe by their names, in the form
// of OpenEmbedded-Core's go-mod-update-modules.bbclass.
func recipeFiles(linked []module) (map[string][]byte, error) {
	uris, err := moduleURIs()
	if err != nil {
		return nil, err
	}
	licences, err := recipeLicences(linked)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"keyvet-go-mods.inc": uris, "keyvet-licenses.inc": licences}, nil
}

// moduleURIs is SRC_URI: every file that the go command takes from the module
// cache to build the device binary, and it alone knows which. So it is given an
// empty cache, with this machine's as its proxy.
func moduleURIs() ([]byte, error) {
	cache, err := goCommand(nil, "env", "GOMODCACHE")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bill")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	here := filepath.Join(strings.TrimSpace(string(cache)), "cache", "download")
	for _, arch := range arches {
		_, err := goCommand([]string{
			"GOARCH=" + arch, "GOMODCACHE=" + dir, "GOPROXY=file://" + filepath.ToSlash(here), "GOSUMDB=off", "GOFLAGS=-mod=readonly -modcacherw",
		}, "list", "-deps", device)
		if err != nil {
			return nil, err
		}
	}
	var uris []string
	downloads := filepath.Join(dir, "cache", "download")
	err = filepath.WalkDir(downloads, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		base, ext := strings.TrimSuffix(name, path.Ext(name)), path.Ext(name)
		if ext == ".mod" {
			if _, err := os.Stat(base + ".zip"); err == nil {
				return nil // bitbake takes it from the zip
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		} else if ext != ".zip" {
			return nil
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(downloads, name)
		if err != nil {
			return err
		}
		module, version := unescape(filepath.ToSlash(filepath.Dir(filepath.Dir(rel)))), unescape(filepath.Base(base))
		sum := sha256.Sum256(b)
		uri := "gomod://" + module + ";version=" + version
		if ext == ".mod" {
			uri += ";mod=1"
		}
		uris = append(uris, uri+";sha256sum="+hex.EncodeToString(sum[:]))
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(uris)
	return []byte(notice + assignment("SRC_URI", uris)), nil
}

// recipeLicences is LICENSE and LIC_FILES_CHKSUM of what is linked, apart from
// keyvet itself, which the recipe names.
func recipeLicences(linked []module) ([]byte, error) {
	var names, files []string
	for _, m := range linked {
		if m.Path == self {
			continue
		}
		name := m.Licence
		if strings.Contains(name, " OR ") {
			name = "(" + strings.ReplaceAll(name, " OR ", " | ") + ")"
		}
		names = append(names, name)
		text, err := os.ReadFile(filepath.Join(m.Dir, m.Texts[0]))
		if err != nil {
			return nil, err
		}
		sum := md5.Sum(text) //nolint:gosec // see the import
		files = append(files, fmt.Sprintf("file://pkg/mod/%s@%s/%s;md5=%s;spdx=%s",
			escape(m.Path), escape(m.Version), m.Texts[0], hex.EncodeToString(sum[:]), url.QueryEscape(m.Licence)))
	}
	slices.Sort(names)
	slices.Sort(files)
	return []byte(notice + "LICENSE += \"& " + strings.Join(slices.Compact(names), " & ") + "\"\n\n" + assignment("LIC_FILES_CHKSUM", files)), nil
}

// assignment appends one value a line to a BitBake variable.
func assignment(variable string, values []string) string {
	return variable + " += \"\\\n    " + strings.Join(values, " \\\n    ") + " \\\n\"\n"
}

// escape writes a module path as the module cache does: https://go.dev/ref/mod#goproxy-protocol.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		if 'A' <= r && r <= 'Z' {
			b.WriteByte('!')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func unescape(s string) string {
	var b strings.Builder
	upper := false
	for _, r := range s {
		switch {
		case r == '!':
			upper = true
			continue
		case upper:
			r += 'A' - 'a'
		}
		upper = false
		b.WriteRune(r)
	}
	return b.String()
}
