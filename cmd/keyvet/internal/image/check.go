package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
)

// check is the root file system of an image, with the packages of every recipe.
func (v variables) check(root string, readOnly bool) (o outcome) {
	if _, err := os.ReadDir(root); err != nil {
		o.fail(err)
		return o
	}
	switch _, err := os.Stat(filepath.Join(root, "usr/bin/keyvet")); {
	case errors.Is(err, fs.ErrNotExist):
		o.done = true // an image without keyvet
		return o
	case err != nil:
		o.fail(err)
		return o
	}
	c := v.configured(root, &o)
	if c == nil {
		return o
	}
	v.name(root, c, &o)
	on, err := mountOf(root, c.StateDir)
	if err != nil {
		o.fail(relative(root, err))
		return o
	}
	if !v.is("STATE_PERSISTENT") {
		o.fail(persistent(c.StateDir, on, readOnly))
	}
	if _, err := os.Lstat(filepath.Join(root, c.StateDir)); err == nil && on.where != "/" {
		o.fail(fmt.Errorf("state_dir: %s is part of the image: while the mount on %s is not there, keyvet would use the one below it. Leave it out; keyvet-state@.service makes it on the mount", c.StateDir, on.where))
	}
	if c.StateDir != config.Default().StateDir {
		o.fail(reached(root, c.StateDir))
	}
	o.done = true
	return o
}

// name says of a name whether all devices of the image have it.
func (v variables) name(root string, c *config.Config, o *outcome) {
	path, inFile := strings.CutPrefix(c.Thing.Name, "file:")
	if !inFile {
		return
	}
	b, err := os.ReadFile(filepath.Join(root, path))
	name := strings.TrimSpace(string(b))
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && name == "":
	case err != nil:
		o.fail(relative(root, err))
	case v.is("ONE_THING"):
		o.warn(fmt.Sprintf("thing.name: %s says %q, on every device of this image that does not change it", path, name))
	default:
		o.fail(fmt.Errorf("thing.name: %s is part of the image and says %q: every device of it would be this thing. Set %q, \"cert:CN\" or \"template\"; KEYVET_ONE_THING = \"1\" if each device writes the file before keyvet starts", path, name, config.NameOfEK))
	}
}

// mountOf returns the mount that a directory is on, as far as the image shows it.
func mountOf(root, dir string) (mount, error) {
	on := mount{where: "/"}
	mounts, err := mountsOf(root)
	for _, m := range mounts {
		if within(dir, m.where) && len(m.where) > len(on.where) {
			on = m
		}
	}
	return on, err
}

// persistent returns why a directory on a mount does not outlive a reboot.
func persistent(dir string, on mount, readOnly bool) error {
	const advice = `: the device's credential would be lost at each boot. Put it on a mount that lasts (KEYVET_STATE_DIR = "/data/keyvet"), or, if something else mounts one there, set KEYVET_STATE_PERSISTENT = "1"`
	switch {
	case on.kind == "tmpfs" || on.kind == "ramfs":
		return fmt.Errorf("state_dir: %s is on %s, which is in memory%s", dir, on.where, advice)
	case on.where == "/" && readOnly:
		return fmt.Errorf("state_dir: %s is on the read-only root, or in memory by volatile-binds%s", dir, advice)
	}
	return nil
}

type mount struct{ where, kind string }

// mountsOf returns those of fstab and of mount units.
func mountsOf(root string) (mounts []mount, err error) {
	fstab, err := os.ReadFile(filepath.Join(root, "etc/fstab"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range strings.Lines(string(fstab)) {
		if f := strings.Fields(line); len(f) >= 3 && !strings.HasPrefix(f[0], "#") && strings.HasPrefix(f[1], "/") {
			mounts = append(mounts, mount{filepath.Clean(f[1]), f[2]})
		}
	}
	for _, dir := range unitDirs {
		names, err := filepath.Glob(filepath.Join(root, dir, "*.mount"))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue // a link to what the device has
			}
			if err != nil {
				return nil, err
			}
			var m mount
			for line := range strings.Lines(string(b)) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				switch strings.TrimSpace(key) {
				case "Where":
					m.where = filepath.Clean(strings.TrimSpace(value))
				case "Type":
					m.kind = strings.TrimSpace(value)
				}
			}
			if m.where != "" {
				mounts = append(mounts, m)
			}
		}
	}
	return mounts, nil
}

var unitDirs = []string{"usr/lib/systemd/system", "lib/systemd/system", "etc/systemd/system"}

// reached returns why the service could not write to a directory of its own: a
// fragment may have named it, without a drop-in.
func reached(root, dir string) error {
	service := false
	for _, units := range unitDirs {
		if _, err := os.Stat(filepath.Join(root, units, "keyvet.service")); err == nil {
			service = true
		}
		names, err := filepath.Glob(filepath.Join(root, units, "keyvet.service.d/*.conf"))
		if err != nil {
			return err
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				return relative(root, err)
			}
			for line := range bytes.Lines(b) {
				paths, found := strings.CutPrefix(strings.TrimSpace(string(line)), "ReadWritePaths=")
				for _, path := range strings.Fields(paths) {
					if found && within(dir, strings.TrimLeft(path, "-+")) {
						return nil
					}
				}
			}
		}
	}
	if !service {
		return nil // another init
	}
	return fmt.Errorf("state_dir: no drop-in of keyvet.service lets it write to %s (ReadWritePaths=): set KEYVET_STATE_DIR, which writes one, in place of a fragment", dir)
}
