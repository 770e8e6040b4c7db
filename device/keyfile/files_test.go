package keyfile_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/keyfile"
)

var update = flag.Bool("update", false, "write files.golden")

func files(t testing.TB, dirs ...string) []string {
	var all []string
	for _, dir := range dirs {
		names, err := filepath.Glob("testdata/" + dir + "/*")
		if err != nil || len(names) < 5 {
			t.Fatalf("testdata/%s: %d files, %v", dir, len(names), err)
		}
		all = append(all, names...)
	}
	return all
}

// describe is one line for each key and each gap.
func describe(keys []device.Key, gaps []device.Gap) string {
	var b strings.Builder
	for _, k := range keys {
		private := "-"
		if k.Private != nil {
			private = "private"
			if !bytes.Equal(k.Private.SPKI, k.SPKI) {
				private = "private-of-another"
			}
		}
		fmt.Fprintf(&b, "%s | %s | %.16s | chain %d | %s | %s\n", strings.TrimPrefix(k.ID, "testdata/"), k.Algorithm(), k.SPKISHA256(), len(k.Chain), private, k.CertificateError)
	}
	for _, g := range gaps {
		fmt.Fprintf(&b, "gap | %s | %s\n", strings.TrimPrefix(g.What, "testdata/"), g.Why)
	}
	return b.String()
}

func TestFiles(t *testing.T) {
	var got strings.Builder
	for _, name := range files(t, "good", "bad", "roca") {
		keys, gaps := keyfile.Read(name)
		if len(keys)+len(gaps) == 0 {
			t.Errorf("%s: neither key nor gap", name)
		}
		got.WriteString(describe(keys, gaps))
	}
	if *update {
		if err := os.WriteFile("testdata/files.golden", []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/files.golden")
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		var g, w string
		if i < len(gotLines) {
			g = gotLines[i]
		}
		if i < len(wantLines) {
			w = wantLines[i]
		}
		if g != w {
			t.Fatalf("line %d of files.golden:\n got %s\nwant %s", i+1, g, w)
		}
	}
}

// TestGoodAndBad holds what files.golden must say whoever wrote it.
func TestGoodAndBad(t *testing.T) {
	for _, name := range files(t, "good") {
		if keys, gaps := keyfile.Read(name); len(keys) == 0 || len(gaps) > 0 {
			t.Errorf("%s: %d keys, gaps %v", name, len(keys), gaps)
		}
	}
	keysBeside := map[string]int{"truncated-then-good.pem": 1, "authorized_keys": 1} // the other objects of the file
	for _, name := range files(t, "bad") {
		keys, gaps := keyfile.Read(name)
		if len(gaps) == 0 || len(keys) != keysBeside[filepath.Base(name)] {
			t.Errorf("%s: %d keys, %d gaps", name, len(keys), len(gaps))
		}
		for _, g := range gaps {
			if strings.Count(g.What, name) != 1 || strings.Contains(g.Why, name) || g.Why == "" || strings.Contains(g.What+g.Why, "\n") {
				t.Errorf("%s: not one line that names the file once: %q %q", name, g.What, g.Why)
			}
		}
	}
}

// TestAgainstOpenSSL compares with what other programs print for the same file.
func TestAgainstOpenSSL(t *testing.T) {
	golden, err := os.ReadFile("testdata/openssl.golden")
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for line := range strings.Lines(string(golden)) {
		name, want, _ := strings.Cut(strings.TrimSpace(line), " ")
		keys, gaps := keyfile.Read("testdata/good/" + name)
		if len(keys) != 1 || len(gaps) != 0 {
			t.Errorf("%s: %d keys, gaps %v", name, len(keys), gaps)
			continue
		}
		if _, other := keys[0].Public.(*device.OtherKey); other && keys[0].Private != nil && keys[0].SPKI == nil {
			continue // the public key would have to be computed
		}
		if got := keys[0].SPKISHA256(); got != want {
			t.Errorf("%s: SPKI %s, openssl has %s", name, got, want)
		}
		compared++
	}
	if compared < 60 {
		t.Errorf("only %d files compared", compared)
	}
}

func TestReadFromIsRead(t *testing.T) {
	for _, name := range files(t, "good", "bad", "roca") {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		keys, gaps := keyfile.ReadFrom(bytes.NewReader(data), "-")
		fileKeys, fileGaps := keyfile.Read(name)
		got, want := describe(keys, gaps), strings.ReplaceAll(describe(fileKeys, fileGaps), strings.TrimPrefix(name, "testdata/"), "-")
		if got != want {
			t.Errorf("%s:\n%swant\n%s", name, got, want)
		}
		for _, k := range keys {
			if k.Source != "file:-" || k.Role != roleOf(name) || k.Private != nil && (k.Private.Path != "-" || k.Private.Mode != 0) {
				t.Errorf("%s: %+v", name, k)
			}
		}
	}
}

// roleOf is the role of the keys of a file of testdata.
func roleOf(name string) device.Role {
	base := filepath.Base(name)
	if strings.HasPrefix(base, "ssh") || base == "authorized_keys" || base == "known_hosts" || base == "rfc4716.pub" {
		return device.RoleSSH
	}
	return device.RoleFile
}
