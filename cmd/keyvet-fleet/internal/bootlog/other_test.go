package bootlog

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/x509"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-eventlog/extract"
	"github.com/google/go-eventlog/tcg"

	"github.com/keyvet/keyvet/tpm/evidence"
)

// other is a log of go-attestation or keylime, whose test data have no PCRs.
func other(t testing.TB, name string) []byte {
	t.Helper()
	log, err := os.ReadFile(filepath.Join("testdata/logs", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// TestOthers says of the logs of go-attestation and keylime what their own tests
// say, in each bank.
func TestOthers(t *testing.T) {
	for _, tt := range []struct {
		name, secureBoot, firmware, commandLine string
		loaders                                 int // without an end of the boot services they are only measured
	}{
		{"keylime", "off", "", "(hd3,gpt2)/vmlinuz-6.11.5-300.fc41.x86_64 root=", 2},
		{"keylime-secureboot", "on", "edk2-20240524-7.el9", "(hd0,gpt2)/vmlinuz-5.14.0-503.11.1.el9_5.x86_64 root=", 3}, // shim, GRUB, the kernel
		{"coreos_36_shielded_vm_no_secure_boot_eventlog", "off", "Google Compute Engine 1", "(hd0,gpt3)/ostree/", 2},
		{"crypto_agile_eventlog", "off", "1efb6b540c1d5540a4ad4ef4bf17b83a", "", 0},
		{"ebs_event_missing_eventlog", "off", "4d3630", "", 0},
		{"option_rom_eventlog", "on", "4d3630", "", 0},
		{"sb_cert_eventlog", "on", "0000", "", 0},
	} {
		log := other(t, tt.name)
		parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{})
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for bank, hash := range banks {
			pcrs := addsUp(parsed, bank, hash)
			if len(pcrs) == 0 {
				continue
			}
			found++
			boot, err := replay(log, pcrs)
			if err != nil || len(boot.Explained) != len(pcrs) || boot.SecureBoot != tt.secureBoot || len(boot.Keys) == 0 || max(len(boot.Loaders), started(boot)) < tt.loaders ||
				!strings.HasPrefix(boot.Firmware, tt.firmware) || !strings.HasPrefix(boot.CommandLine, tt.commandLine) || (tt.commandLine == "") != (boot.CommandLine == "") {
				t.Errorf("%s, %s: %v, %+v", tt.name, bank, err, boot)
			}
			for i := range pcrs { // and of no other boot
				pcrs[i].Value[3] ^= 1
				if boot, err := replay(log, pcrs); err != nil || len(boot.Explained) != len(pcrs)-1 {
					t.Errorf("%s, %s, PCR %d: %v, %v", tt.name, bank, pcrs[i].Index, err, boot.Explained)
				}
				pcrs[i].Value[3] ^= 1
			}
		}
		if found == 0 {
			t.Errorf("%s: no bank", tt.name)
		}
	}
	if _, err := replay(other(t, "short_no_action_eventlog"), nil); err != nil {
		t.Error(err)
	}
}

// started are the programs that were measured after the separator.
func started(boot evidence.Boot) (n int) {
	for _, m := range boot.After {
		if m.Type == "EV_EFI_BOOT_SERVICES_APPLICATION" {
			n++
		}
	}
	return n
}

// measured is an event of SHA-256 whose digest is that of other bytes than its data.
func measured(pcr, kind uint32, image, data string) []byte {
	e := event(pcr, kind, []byte(image))
	return append(e[:46], append(binary.LittleEndian.AppendUint32(nil, uint32(len(data))), data...)...)
}

// TestUBoot replays what U-Boot measures by bootm_measure (boot/bootm.c) and
// tcg2_measurement_term (lib/tpm_tcg2.c).
func TestUBoot(t *testing.T) {
	const cmdline = "console=ttyS0 root=/dev/mmcblk0p2\x00"
	events := [][]byte{
		event(0, 8, []byte("U-Boot 2025.01 (Jan 06 2025)\x00")),
		measured(8, 0xc, "the kernel", "linux\x00"), measured(9, 0xc, "the initrd", "initrd\x00"), measured(0, 0xb, "the tree", "dts\x00"),
		event(1, 0xa, []byte(cmdline)),
	}
	for pcr := range uint32(8) {
		events = append(events, event(pcr, 4, []byte{0xff, 0xff, 0xff, 0xff}))
	}
	log := append(head(1, 0x0b, 32), bytes.Join(events, nil)...)
	boot, err := replay(log, extended(events...))
	if err != nil || len(boot.Explained) != 10 || boot.CommandLine != strings.TrimRight(cmdline, "\x00") || !strings.HasPrefix(boot.Firmware, "U-Boot 2025.01") ||
		len(boot.Loaders) != 2 || boot.Loaders[0].Path != "linux" || boot.Loaders[1].Path != "initrd" || boot.SecureBoot != "" || len(boot.After) != 0 {
		t.Errorf("%v, %+v", err, boot)
	}
	// A command line that is not the one measured is not said.
	changed := bytes.Replace(log, []byte("mmcblk0p2"), []byte("mmcblk1p2"), 1)
	if boot, err := replay(changed, extended(events...)); err != nil || boot.CommandLine != "" {
		t.Errorf("%v, %+v", err, boot)
	}
	// Nor is anything by the names of U-Boot in a log of another firmware.
	events[0] = event(0, 8, []byte("V-Boot 2025.01 (Jan 06 2025)\x00"))
	if boot, err := replay(append(head(1, 0x0b, 32), bytes.Join(events, nil)...), extended(events...)); err != nil || len(boot.Loaders) > 0 || boot.CommandLine != "" {
		t.Errorf("%v, %+v", err, boot)
	}
	events[0] = event(0, 8, []byte("U-Boot 2025.01 (Jan 06 2025)\x00"))
	// By UEFI it measures as any firmware.
	log, pcrs := machine(t, "debian-13-u-boot", "sha256")
	if boot, err := replay(log, pcrs); err != nil || !strings.HasPrefix(boot.Firmware, "U-Boot 2025.01-3+deb13u1 (") || boot.SecureBoot != "off" || len(boot.Loaders) != 1 || boot.Loaders[0].Path != `\EFI\BOOT\BOOTAA64.EFI` {
		t.Errorf("%v, %+v", err, boot)
	}
	log = append(head(1, 0x0b, 32), bytes.Join(events, nil)...)
	// What was measured after the separator is.
	late := event(4, 5, []byte("booting something else"))
	boot, err = replay(append(bytes.Clone(log), late...), extended(append(events, late)...))
	if err != nil || len(boot.After) != 1 || boot.After[0].PCR != 4 || boot.After[0].Type != "EV_ACTION" || boot.After[0].What != "booting something else" {
		t.Errorf("%v, %+v", err, boot.After)
	}
}

// TestCoreboot replays a log as coreboot writes it (src/security/tpm/tspi/log-tpm2.c):
// names of 50 bytes, something of its own in the head, and memory for more events.
func TestCoreboot(t *testing.T) {
	name := func(text string) string { return text + strings.Repeat("\x00", 50-len(text)) }
	events := [][]byte{
		measured(2, 5, "bootblock", name("FMAP: BOOTBLOCK")), measured(2, 5, "romstage", name("CBFS: fallback/romstage")), measured(3, 5, "payload", name("CBFS: fallback/payload")),
	}
	spec := head(1, 0x0b, 32)
	vendor := []byte{16, 0, 1, 0, 'C', 'B', 'T', '2', 50, 0, 3, 0, 0, 0, 0, 0, 0}
	spec = append(spec[:len(spec)-1], vendor...)
	binary.LittleEndian.PutUint32(spec[28:], uint32(len(spec)-32))
	log := append(spec, bytes.Join(events, nil)...)
	padded := append(bytes.Clone(log), make([]byte, 47*100)...)
	for _, log := range [][]byte{log, padded} {
		boot, err := replay(log, append(extended(events...), evidence.PCR{Bank: "sha256", Index: 7, Value: make([]byte, 32)}))
		if err != nil || !slices.Equal(boot.Explained, []int{2, 3, 7}) || boot.SecureBoot != "" || !strings.Contains(strings.Join(boot.NotRead, ";"), "the firmware did not measure it") {
			t.Errorf("%v, %+v", err, boot)
		}
	}
}

// TestSHA1Form replays the forms of SHA-1 alone, with and without their head.
func TestSHA1Form(t *testing.T) {
	old := func(pcr, kind uint32, data []byte) []byte {
		b := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, pcr), kind)
		sum := sha1.Sum(data)
		return append(binary.LittleEndian.AppendUint32(append(b, sum[:]...), uint32(len(data))), data...)
	}
	events := append(old(0, 8, []byte("coreboot-4.22")), old(7, 4, make([]byte, 4))...)
	parsed, err := tcg.ParseEventLog(events, tcg.ParseOpts{})
	if err != nil {
		t.Fatal(err)
	}
	pcrs := addsUp(parsed, "sha1", crypto.SHA1)
	for name, log := range map[string][]byte{
		"no head": events,
		"BIOS":    append(old(0, noAction, append([]byte(specIDBIOS), make([]byte, 9)...)), events...),
		"EFI":     append(old(0, noAction, append([]byte(specIDEFI), make([]byte, 40)...)), events...),
	} {
		boot, err := replay(log, pcrs)
		if err != nil || !slices.Equal(boot.Explained, []int{0, 7}) || boot.Firmware != "coreboot-4.22" {
			t.Errorf("%s: %v, %+v", name, err, boot)
		}
		if boot, err := replay(log, extended()); err != nil || len(boot.Explained) > 0 {
			t.Errorf("%s: %v, %+v", name, err, boot)
		}
	}
	if _, err := replay(old(0, noAction, append([]byte(specIDEFI), make([]byte, 40)...)), nil); err == nil {
		t.Error("a head alone is taken")
	}
}

// TestForbidden has dbx name a program that was started.
func TestForbidden(t *testing.T) {
	const sha256List = "\x26\x16\xc4\xc1\x4c\x50\x92\x40\xac\xa9\x41\xf9\x36\x93\x43\x28"
	app := measured(4, 0x80000003, "a boot loader", strings.Repeat("\x00", 32))
	list := binary.LittleEndian.AppendUint32([]byte(sha256List), 28+48)
	list = append(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(list, 0), 48), make([]byte, 16)...)
	for _, forbidden := range []bool{true, false} {
		digest := bytes.Clone(app[14:46])
		if !forbidden {
			digest[0] ^= 1
		}
		data := append(bytes.Clone(list), digest...)
		events := [][]byte{
			event(7, 0x80000001, variable("SecureBoot", 1, []byte{0})), event(7, 0x80000001, variable("dbx", uint64(len(data)), data)), event(7, 4, make([]byte, 4)), app,
		}
		boot, err := replay(append(head(1, 0x0b, 32), bytes.Join(events, nil)...), extended(events...))
		if err != nil || boot.Hashes.Forbidden != 1 || (len(boot.Forbidden) == 1) != forbidden {
			t.Errorf("%v: %v, %+v", forbidden, err, boot)
		}
	}
	started := tcg.Event{Index: 4, Type: tcg.EFIBootServicesApplication, Digest: []byte("a digest"), Data: make([]byte, 32)}
	one, other := x509.Certificate{Raw: []byte("one")}, x509.Certificate{Raw: []byte("other")}
	for _, tt := range []struct {
		hash    crypto.Hash
		vouched x509.Certificate
		want    int
	}{{crypto.SHA256, one, 2}, {crypto.SHA256, other, 1}, {crypto.SHA1, other, 0}} {
		var boot evidence.Boot
		forbid(&boot, confirmed{hash: tt.hash, events: []tcg.Event{started}}, &extract.SecurebootState{
			ForbiddenKeys: []x509.Certificate{one}, PostSeparatorAuthority: []x509.Certificate{tt.vouched}, ForbiddenHashes: [][]byte{started.Digest},
		})
		if len(boot.Forbidden) != tt.want {
			t.Errorf("%v, %s: %q", tt.hash, tt.vouched.Raw, boot.Forbidden)
		}
	}
}
