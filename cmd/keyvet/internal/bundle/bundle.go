// Package bundle packs what somebody who helps needs to know of a device, and
// nothing secret.
package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/status"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/durable"
)

// maxFiles bounds how many files of a directory are listed.
const maxFiles = 1000

// Write writes a text that its sender can read first, a part after the other: the
// version, the settings without passwords, the status, the last report, what files
// there are with owners and modes, and the system. Of keys it has the public halves
// alone, in the report. What cannot be read is in it by the reason. The
// configuration is nil where wrong says why it cannot be used.
func Write(w io.Writer, c *config.Config, wrong error, version string) error {
	settings := ""
	if wrong != nil {
		settings = "# These are the defaults, since the configuration is wrong:\n# " + strings.ReplaceAll(withoutQuoted(wrong.Error()), "\n", "\n# ") + "\n"
		c = config.Default()
	}
	settings += strings.Join(c.Settings(), "\n") + "\n"
	for _, part := range [][2]string{
		{"version.txt", version},
		{"settings.toml", settings},
		{"status.json", document(status.Read(c))},
		{"report.json", report(c)},
		{"files.txt", files(c)},
		{"system.txt", system(time.Now())},
	} {
		if _, err := fmt.Fprintf(w, "==> %s <==\n%s\n", part[0], part[1]); err != nil {
			return err
		}
	}
	return nil
}

// document is v for a program, or why there is none.
func document(v any, err error) string {
	if err != nil {
		v = map[string]string{"error": err.Error()}
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err.Error() + "\n"
	}
	return string(b) + "\n"
}

// withoutQuoted leaves out what stands in quotes: values that are wrong may be
// secret even so.
func withoutQuoted(text string) string {
	parts := strings.Split(text, `"`)
	for i := 1; i < len(parts); i += 2 {
		parts[i] = "…"
	}
	return strings.Join(parts, `"`)
}

func report(c *config.Config) string {
	state, err := agent.LatestState(c.StateDir, c.RunDir)
	if err != nil {
		return document(nil, err)
	}
	return document(state.Report, nil)
}

// files lists what is in the directories of keyvet's and which TPMs there are.
func files(c *config.Config) string {
	var b strings.Builder
	for _, dir := range []string{c.StateDir, c.RunDir, "/etc/keyvet", "/usr/lib/keyvet", "/run/keyvet-conf.d", "/usr/share/keyvet"} {
		n := 0
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if n++; n > maxFiles {
				fmt.Fprintf(&b, "%s: more than %d files\n", dir, maxFiles)
				return filepath.SkipAll
			}
			list(&b, path)
			if err != nil {
				fmt.Fprintf(&b, "%s: %v\n", path, err)
			}
			return nil
		})
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", dir, err)
		}
	}
	for _, pattern := range []string{"/dev/tpm*", "/dev/spidev*", "/dev/i2c-*", "/sys/class/tpm/*"} {
		found, _ := filepath.Glob(pattern)
		for _, path := range found {
			list(&b, path)
		}
	}
	return b.String()
}

// list writes a line on a file: mode, owner, size, time, name.
func list(b *strings.Builder, path string) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return // what there is not is in no line
	}
	if err != nil {
		fmt.Fprintf(b, "%s: %v\n", path, err)
		return
	}
	owner := ""
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = fmt.Sprintf("%d:%d", s.Uid, s.Gid)
	}
	fmt.Fprintf(b, "%s %-11s %9d %s %s", info.Mode(), owner, info.Size(), info.ModTime().UTC().Format(time.RFC3339), path)
	if target, err := os.Readlink(path); err == nil {
		fmt.Fprintf(b, " -> %s", target)
	}
	b.WriteByte('\n')
}

// maxSystem bounds what is read of a file of the system's.
const maxSystem = 64 << 10

// system is what the kernel and the distribution say of themselves, and the clock.
func system(now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "clock %s, cannot be right before %s\n", now.UTC().Format(time.RFC3339), device.ClockFloor().UTC().Format(time.RFC3339))
	groups, _ := os.Getgroups()
	fmt.Fprintf(&b, "user %d, group %d, groups %v\n", os.Getuid(), os.Getgid(), groups)
	for _, path := range []string{"/proc/version", "/proc/uptime", "/proc/meminfo", "/etc/os-release", "/proc/self/mountinfo", "/proc/device-tree/model"} {
		text, err := durable.ReadBounded(path, maxSystem)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		fmt.Fprintf(&b, "\n%s\n", path)
		if err != nil {
			fmt.Fprintln(&b, err)
		}
		b.Write(text)
	}
	return b.String()
}
