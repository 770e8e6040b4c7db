//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
)

// ovmf is Debian's UEFI firmware for QEMU, which holds to Secure Boot where the
// variables have keys.
const ovmf = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"

// snakeoil is the certificate of Debian's package ovmf whose key is beside it, under
// the pass phrase "snakeoil".
const snakeoil = "/usr/share/ovmf/PkKek-1-snakeoil"

// TestSecureBoot has UEFI boot the machine, by Debian's shim and GRUB: without keys,
// with Microsoft's, by which Debian's shim is signed, and with one that everybody
// has. keyvet-fleet says of the report of each boot what the firmware measured.
func TestSecureBoot(t *testing.T) {
	for _, tt := range []struct {
		name       string // of the variables, which the package ovmf has, too
		secureBoot string
		keys       map[string]string // by variable, of whom
		started    int               // without Secure Boot GRUB does not ask the firmware to start the kernel
		known      string            // the key that is public
	}{
		{"off", "off", nil, 2, ""},
		{"ms", "on", map[string]string{"PK": "Debian", "KEK": "CN=Microsoft Corporation KEK CA 2011", "db": "CN=Microsoft Corporation UEFI CA 2011"}, 3, ""},
		{"snakeoil", "on", map[string]string{"PK": "O=SnakeOil", "KEK": "O=SnakeOil", "db": "O=SnakeOil"}, 3, "snakeoil"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cloud := startCloud(t)
			m := newMachine(t, "uefi-"+tt.name, tis)
			m.enrol(cloud, newKey(t))
			m.configure(cloud, "[evidence]\npcrs = \"sha256:0,1,2,3,4,5,6,7,8,9\"\n") // GRUB measures into 8 and 9
			m.firmware(tt.name)
			m.on()
			m.says(`Reached target multi-user\.target`)

			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			message, err := cloud.WaitMessage(ctx, "keyvet/"+m.name+"/report")
			if err != nil {
				t.Fatalf("%v\n%s", err, m.console.tail())
			}
			result := verified(t, m.name, message.Payload)
			boot := result.Boot
			if boot == nil {
				t.Fatalf("no boot is shown: %+v", result.Levels)
			}
			if len(boot.Explained) != 10 || boot.SecureBoot != tt.secureBoot || len(boot.NotRead) > 0 || len(boot.Forbidden) > 0 {
				t.Errorf("%+v", boot)
			}
			for _, variable := range []string{"PK", "KEK", "db"} {
				name, want := tt.keys[variable]
				if has := slices.ContainsFunc(boot.Keys, func(k anchor) bool {
					return k.Variable == variable && strings.Contains(k.Subject, name)
				}); has != want {
					t.Errorf("%s: %+v", variable, boot.Keys)
				}
			}
			if len(boot.Loaders) != tt.started || boot.Loaders[0].Path != `\EFI\BOOT\BOOTX64.EFI` || boot.Loaders[1].Path != `\EFI\BOOT\grubx64.efi` {
				t.Errorf("it started %+v", boot.Loaders)
			}
			if want := strings.TrimSpace("/vmlinuz " + m.commandLine()); boot.CommandLine != want {
				t.Errorf("command line %q, want %q", boot.CommandLine, want)
			}
			found := slices.ContainsFunc(result.Findings, func(f device.Finding) bool {
				return f.Check == "compromised" && f.Status == device.Fail && strings.Contains(f.Message, tt.known)
			})
			if found != (tt.known != "") || (result.Verdict == device.Fail) != found {
				t.Errorf("verdict %s, levels %+v, findings %+v", result.Verdict, result.Levels, result.Findings)
			}
		})
	}
}

// firmware gives a machine UEFI with these variables, and a disk with what it boots.
func (m *machine) firmware(variables string) {
	m.t.Helper()
	path := func(name string) string { return filepath.Join(m.dir, name) }
	source := "/usr/share/OVMF/OVMF_VARS_4M." + variables + ".fd"
	if variables == "off" {
		source = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	}
	m.run("cp", source, path("variables"))
	shim := m.board.file(m.t, "shimx64.efi.signed")
	if variables == "snakeoil" {
		m.run("openssl", "pkey", "-in", snakeoil+".key", "-passin", "pass:snakeoil", "-out", path("snakeoil.key"))
		m.run("sbsign", "--key", path("snakeoil.key"), "--cert", snakeoil+".pem", "--output", path("shim"), shim)
		shim = path("shim")
	}
	if err := os.WriteFile(path("grub.cfg"), []byte("linux /vmlinuz "+m.commandLine()+"\nboot\n"), 0o600); err != nil {
		m.t.Fatal(err)
	}
	esp := path("esp")
	m.run("mformat", "-C", "-i", esp, "-T", "65536", "-h", "64", "-s", "32", "::")
	m.run("mmd", "-i", esp, "::EFI", "::EFI/BOOT", "::EFI/debian")
	for to, from := range map[string]string{
		"EFI/BOOT/BOOTX64.EFI": shim, "EFI/BOOT/grubx64.efi": m.board.file(m.t, "grubx64.efi.signed"),
		"EFI/debian/grub.cfg": path("grub.cfg"), "vmlinuz": m.board.file(m.t, "vmlinuz"),
	} {
		m.run("mcopy", "-i", esp, from, "::"+to)
	}
	m.uefi = []string{
		"-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + ovmf, "-drive", "if=pflash,format=raw,unit=1,file=" + path("variables"),
		"-drive", "file=" + esp + ",format=raw,if=none,id=esp", "-device", "ide-hd,drive=esp,bootindex=0",
	}
}

// opinion is what keyvet-fleet verify -json says of a report, as far as it is asked here.
type opinion struct {
	Verdict device.Status `json:"verdict"`
	Levels  []struct {
		Level, Reason string
		Status        device.Status
	} `json:"levels"`
	Findings []device.Finding `json:"findings"`
	Boot     *struct {
		Explained   []int                   `json:"explained"`
		SecureBoot  string                  `json:"secureBoot"`
		Keys        []anchor                `json:"keys"`
		Forbidden   []string                `json:"forbidden"`
		Loaders     []struct{ Path string } `json:"loaders"`
		CommandLine string                  `json:"commandLine"`
		NotRead     []string                `json:"notRead"`
	} `json:"boot"`
}

// anchor is a certificate of a variable of Secure Boot.
type anchor struct{ Variable, Subject string }

// verified is what keyvet-fleet verify says of a report, which is kept.
func verified(t *testing.T, name string, report []byte) *opinion {
	t.Helper()
	file := filepath.Join(t.ArtifactDir(), name+".json")
	if err := os.WriteFile(file, report, 0o600); err != nil {
		t.Fatal(err)
	}
	fleet := filepath.Join(t.TempDir(), "keyvet-fleet")
	if out, err := exec.Command("go", "build", "-o", fleet, "../cmd/keyvet-fleet").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command(fleet, "verify", "-json", file).Output() // its exit status is the verdict
	result := new(opinion)
	if json.Unmarshal(out, result) != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return result
}
