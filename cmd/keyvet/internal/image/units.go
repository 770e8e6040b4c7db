package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
)

const dropIn = "usr/lib/systemd/system/keyvet.service.d/20-image.conf"

// units returns the files, by name, with which systemd, udev and tmpfiles let the
// service use its TPM and write its state. group is that of a bare bus's device.
func units(c *config.Config, group string) map[string]string {
	files := make(map[string]string)
	var unit, service []string
	if path := busOf(c.TPM.Address); path != "" {
		device := escape(path) + ".device"
		unit = append(unit, "Wants="+device, "After="+device)
		if !strings.HasPrefix(path, "/dev/tpm") {
			service = append(service, "DeviceAllow="+path+" rw")
			files["usr/lib/udev/rules.d/61-keyvet-bus.rules"] = fmt.Sprintf("KERNEL==%q, GROUP=%q, MODE=\"0660\", TAG+=\"systemd\"\n", filepath.Base(path), cmp.Or(group, "tss"))
			if group != "" && group != "tss" { // of which user keyvet is a member
				service = append(service, "SupplementaryGroups="+group)
			}
		}
	}
	var writable []string
	if c.StateDir != config.Default().StateDir {
		state := "keyvet-state@" + escape(c.StateDir) + ".service"
		unit = append(unit, "Wants="+state, "After="+state)
		service = append(service, "StateDirectory=")
		writable = append(writable, c.StateDir)
	} else {
		files["usr/lib/tmpfiles.d/keyvet-state.conf"] = "d " + c.StateDir + " 0700 keyvet keyvet -\n"
	}
	if c.Provision.DeleteClaim {
		for _, file := range []string{c.Provision.ClaimCertificate, c.Provision.ClaimKey} {
			if dir := filepath.Dir(file); !within(dir, c.StateDir) && !slices.Contains(writable, "-"+dir) {
				writable = append(writable, "-"+dir)
			}
		}
	}
	if writable != nil {
		service = append(service, "ReadWritePaths="+strings.Join(writable, " "))
	}
	var b strings.Builder
	for _, section := range []struct {
		name  string
		lines []string
	}{{"[Unit]", unit}, {"[Service]", service}} {
		if section.lines != nil {
			fmt.Fprintf(&b, "%s\n%s\n", section.name, strings.Join(section.lines, "\n"))
		}
	}
	if b.Len() > 0 {
		files[dropIn] = b.String()
	}
	return files
}

// busOf returns the device node that a TPM's address names, if udev makes one for
// it that systemd can wait for: /dev/tpm0 has no tag.
func busOf(address string) string {
	for _, scheme := range []string{"spi:", "i2c:"} {
		if path, found := strings.CutPrefix(address, scheme); found {
			path, _, _ = strings.Cut(path, "?")
			return path
		}
	}
	if strings.HasPrefix(address, "/dev/tpmrm") {
		return address
	}
	return ""
}

// within reports whether a path is dir or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// escape is a path as part of a unit's name (systemd.unit(5)).
func escape(path string) string {
	var b strings.Builder
	for i, c := range []byte(strings.Trim(filepath.Clean(path), "/")) {
		switch {
		case c == '/':
			b.WriteByte('-')
		case c == '_' || c == ':' || c == '.' && i > 0, '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}
