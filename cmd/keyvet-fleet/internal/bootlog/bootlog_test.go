package bootlog

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	gepb "github.com/google/go-eventlog/proto/state"
	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	attestpb "github.com/google/go-tpm-tools/proto/attest"

	"github.com/keyvet/keyvet/tpm/evidence"
)

var machines = []string{
	"arch-linux-workstation", "cos-101-amd-sev", "debian-10", "gdc-host", "glinux-alex", "rhel8-uefi", "ubuntu-2104-no-secure-boot",
	"debian-13-ovmf-off", "debian-13-ovmf-ms", "debian-13-ovmf-snakeoil", "debian-13-u-boot",
}

// machine is a published log, and the PCRs of that boot in one bank.
func machine(t testing.TB, name, bank string) ([]byte, []evidence.PCR) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join("testdata/logs", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join("testdata/logs", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var banks map[string]map[int]string
	if err := json.Unmarshal(b, &banks); err != nil {
		t.Fatal(err)
	}
	var pcrs []evidence.PCR
	for _, i := range slices.Sorted(maps.Keys(banks[bank])) {
		value, err := hex.DecodeString(banks[bank][i])
		if err != nil {
			t.Fatal(err)
		}
		pcrs = append(pcrs, evidence.PCR{Bank: bank, Index: i, Value: value})
	}
	return log, pcrs
}

func replay(log []byte, pcrs []evidence.PCR) (evidence.Boot, error) {
	return Replayer{}.replay(log, pcrs)
}

// of returns the PCRs of these numbers.
func of(pcrs []evidence.PCR, numbers ...int) []evidence.PCR {
	return slices.DeleteFunc(slices.Clone(pcrs), func(p evidence.PCR) bool { return !slices.Contains(numbers, p.Index) })
}

// TestMachines replays logs of real machines.
func TestMachines(t *testing.T) {
	for _, tt := range []struct {
		name, secureBoot string
		pcrs, loaders    int
		keys             string
		forbidden        int
		commandLine      string
		notRead          string
	}{
		{"arch-linux-workstation", "off", 9, 0, "PK 1 KEK 2 db 3", 77, "", ""},
		{"cos-101-amd-sev", "on", 11, 4, "PK 1 KEK 1 db 1 dbx 4", 0, "/syslinux/vmlinuz.A init=/usr/lib/systemd/systemd", ""},
		{"debian-10", "on", 8, 0, "PK 1 KEK 1 db 2 dbx 3", 183, "", ""},
		{"gdc-host", "off", 11, 3, "PK 1 KEK 1 db 5 dbx 1", 459, "/vmlinuz-6.9.0-rc7+ root=", "invalid SCRTM version event"},
		{"glinux-alex", "off", 8, 0, "PK 1 KEK 1 db 4", 77, "", "separator data but non-separator type"}, // its PK has a negative serial number
		{"rhel8-uefi", "on", 11, 3, "PK 1 KEK 1 db 2 dbx 3", 183, "(hd0,gpt2)/boot/vmlinuz-4.18.0-240.22.1.el8_3.x86_64 root=", ""},
		{"ubuntu-2104-no-secure-boot", "off", 11, 2, "PK 1 KEK 1 db 2 dbx 3", 183, "/boot/vmlinuz-5.11.0-1006-gcp root=", ""},
		{"debian-13-ovmf-off", "off", 10, 2, "", 0, "/vmlinuz root=/dev/nvme0n1 rw", ""},
		{"debian-13-ovmf-ms", "on", 10, 3, "PK 1 KEK 2 db 2", 1, "/vmlinuz root=/dev/nvme0n1 rw", ""},
		{"debian-13-ovmf-snakeoil", "on", 10, 3, "PK 1 KEK 1 db 1", 1, "/vmlinuz root=/dev/nvme0n1 rw", ""},
		{"debian-13-u-boot", "off", 9, 1, "", 0, "", ""},
	} {
		banks := 0
		for _, bank := range []string{"sha1", "sha256"} {
			log, pcrs := machine(t, tt.name, bank)
			if len(pcrs) == 0 {
				continue
			}
			banks++
			boot, err := replay(log, pcrs)
			if err != nil || len(boot.Explained) != tt.pcrs || len(boot.Differ)+len(boot.Unexplained) > 0 {
				t.Errorf("%s, %s: %v, explained %v, differ %v, unexplained %v", tt.name, bank, err, boot.Explained, boot.Differ, boot.Unexplained)
			}
			var keys []string
			for _, variable := range []string{"PK", "KEK", "db", "dbx"} {
				n := 0
				for _, k := range boot.Keys {
					if k.Variable == variable && k.Subject != "" && len(k.SHA256) == 64 && k.Certificate != nil {
						n++
					}
				}
				if n > 0 {
					keys = append(keys, fmt.Sprint(variable, " ", n))
				}
			}
			if got := strings.Join(keys, " "); got != tt.keys || boot.SecureBoot != tt.secureBoot || boot.Hashes.Forbidden != tt.forbidden || len(boot.Loaders) != tt.loaders {
				t.Errorf("%s, %s: Secure Boot %q, keys %s, hashes %v, %d loaders", tt.name, bank, boot.SecureBoot, got, boot.Hashes, len(boot.Loaders))
			}
			if !strings.HasPrefix(boot.CommandLine, tt.commandLine) || (boot.CommandLine == "") != (tt.commandLine == "") || !strings.Contains(strings.Join(boot.NotRead, ";"), tt.notRead) || (len(boot.NotRead) > 0) != (tt.notRead != "") {
				t.Errorf("%s, %s: command line %.80q, not read %q", tt.name, bank, boot.CommandLine, boot.NotRead)
			}
		}
		if banks == 0 {
			t.Errorf("%s has no PCRs", tt.name)
		}
	}
}

// What is not quoted is not said.
func TestOnlyWhatIsQuoted(t *testing.T) {
	log, pcrs := machine(t, "rhel8-uefi", "sha256")
	boot, err := replay(log, of(pcrs, 0, 1, 2, 3, 4, 6))
	if err != nil || len(boot.Explained) != 6 || boot.SecureBoot != "" || boot.Keys != nil || boot.Loaders != nil || boot.CommandLine != "" || boot.NotRead != nil {
		t.Errorf("%+v, %v", boot, err)
	}
	if boot, err = replay(log, of(pcrs, 7)); err != nil || boot.SecureBoot != "on" || boot.Loaders != nil || boot.NotRead != nil {
		t.Errorf("%+v, %v", boot, err)
	}
}

// A log of another boot, or a PCR that is another, is not taken.
func TestOtherBoot(t *testing.T) {
	for _, name := range machines {
		for _, other := range machines {
			for _, bank := range []string{"sha1", "sha256"} {
				log, _ := machine(t, name, bank)
				_, pcrs := machine(t, other, bank)
				if name == other || len(pcrs) == 0 {
					continue
				}
				boot, err := replay(log, pcrs)
				said := len(boot.Differ) > 0 || slices.Contains(boot.NotRead, "the log has no digests of the bank "+bank)
				if err != nil || !said || len(boot.Explained) == len(pcrs) {
					t.Errorf("log of %s, PCRs of %s: %v, explained %v, differ %v", name, other, err, boot.Explained, boot.Differ)
				}
			}
		}
	}
	log, pcrs := machine(t, "rhel8-uefi", "sha256")
	for i, p := range pcrs {
		p.Value[0] ^= 1
		boot, err := replay(log, pcrs)
		want := &boot.Differ
		if p.Index >= firstOfSystem {
			want = &boot.Unexplained
		}
		if err != nil || !slices.Equal(*want, []int{p.Index}) || len(boot.Explained) != len(pcrs)-1 {
			t.Errorf("PCR %d, %d: %v, differ %v, unexplained %v", p.Index, i, err, boot.Differ, boot.Unexplained)
		}
		p.Value[0] ^= 1
	}
	// A PCR without an event must be as it was at the start.
	zero := evidence.PCR{Bank: "sha256", Index: 15, Value: make([]byte, 32)}
	high := evidence.PCR{Bank: "sha256", Index: 17, Value: bytes.Repeat([]byte{0xff}, 32)}
	if boot, err := replay(log, []evidence.PCR{zero, high}); err != nil || len(boot.Explained) != 2 {
		t.Errorf("%+v, %v", boot, err)
	}
	zero.Value[31], high.Value[31] = 1, 0
	if boot, err := replay(log, []evidence.PCR{zero, high}); err != nil || len(boot.Unexplained) != 2 {
		t.Errorf("%+v, %v", boot, err)
	}
	if boot, err := replay(log, []evidence.PCR{{Bank: "sha512", Index: 0, Value: make([]byte, 64)}}); err != nil || len(boot.Explained) != 0 || len(boot.NotRead) != 1 {
		t.Errorf("%+v, %v", boot, err)
	}
}

// A bit that the PCRs cover is not taken; no other makes the log say something else
// of Secure Boot and its keys. Most bits they do not cover: that is why the TPM
// signs the log, too.
func TestFlippedBits(t *testing.T) {
	log, pcrs := machine(t, "arch-linux-workstation", "sha256")
	pcrs = of(pcrs, 0, 1, 2, 3, 4, 5, 6, 7)
	whole, err := replay(log, pcrs)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	const step = 11
	for i := 0; i < len(log); i += step {
		log[i] ^= 1 << (i % 8)
		boot, err := replay(log, pcrs)
		switch {
		case err != nil || len(boot.Explained) < len(pcrs):
			refused++
		case boot.SecureBoot != whole.SecureBoot && boot.SecureBoot != "" || len(boot.Keys) > len(whole.Keys) || boot.CommandLine != whole.CommandLine:
			t.Errorf("bit %d of byte %d: %+v", i%8, i, boot)
		}
		log[i] ^= 1 << (i % 8)
	}
	if all := len(log) / step; refused < all/20 || refused == all {
		t.Errorf("%d of %d bits are refused", refused, all)
	}
}

// event is one of a crypto-agile log with SHA-256 alone.
func event(pcr, kind uint32, data []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, pcr)
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = binary.LittleEndian.AppendUint32(b, 1)
	b = binary.LittleEndian.AppendUint16(b, 0x0b)
	sum := sha256.Sum256(data)
	b = append(b, sum[:]...)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
}

// head starts a crypto-agile log that states these algorithms and sizes.
func head(count uint32, algorithms ...uint16) []byte {
	data := append([]byte(specID), 0, 0, 0, 0, 0, 2, 0, 2)
	data = binary.LittleEndian.AppendUint32(data, count)
	for _, n := range algorithms {
		data = binary.LittleEndian.AppendUint16(data, n)
	}
	data = append(data, 0)
	b := binary.LittleEndian.AppendUint32(make([]byte, 4), noAction)
	b = append(b, make([]byte, 20)...)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
}

// variable is the data of an event on an EFI variable that states that size.
func variable(name string, size uint64, data []byte) []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 16), uint64(len(name)))
	b = binary.LittleEndian.AppendUint64(b, size)
	for _, c := range []byte(name) {
		b = append(b, c, 0)
	}
	return append(b, data...)
}

// extended are the PCRs that a log of SHA-256 adds up to.
func extended(events ...[]byte) (pcrs []evidence.PCR) {
	values := make(map[int][]byte)
	for _, e := range events {
		i := int(binary.LittleEndian.Uint32(e))
		if values[i] == nil {
			values[i] = make([]byte, 32)
		}
		sum := sha256.Sum256(append(values[i], e[14:46]...))
		values[i] = sum[:]
	}
	for i, v := range values {
		pcrs = append(pcrs, evidence.PCR{Bank: "sha256", Index: i, Value: v})
	}
	return pcrs
}

// Logs that are made to take long, or much memory, or to end the program.
func TestHostile(t *testing.T) {
	good := head(1, 0x0b, 32)
	secureBoot := event(7, 0x80000001, variable("SecureBoot", 1, []byte{1}))
	list := func(all, header, each uint32) []byte {
		b := binary.LittleEndian.AppendUint32([]byte("\xa1\x59\xc0\xa5\xe4\x94\xa7\x4a\x87\xb5\xab\x15\x5c\x2b\xf0\x72"), all)
		return append(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, header), each), make([]byte, 100)...)
	}
	db := func(data []byte) []byte { return event(7, 0x80000001, variable("db", uint64(len(data)), data)) }
	many := bytes.Repeat(event(7, 4, nil), maxEvents+1)
	for name, tt := range map[string]struct {
		log     []byte
		pcrs    []evidence.PCR
		refused string // the log as a whole
		notRead string // or what it says of Secure Boot
	}{
		"empty":                        {nil, nil, "ends within its first event", ""},
		"ones":                         {bytes.Repeat([]byte{0xff}, 1<<20), nil, "ends within its first event", ""},
		"nearly zeros":                 {append(make([]byte, 16<<20), 1), nil, "more than 16384 events", ""},
		"another kind":                 {append(append(make([]byte, 4), 3, 0, 0, 0), append(make([]byte, 20), append([]byte{28, 0, 0, 0}, make([]byte, 28)...)...)...), nil, "another kind of log", ""},
		"no algorithm":                 {head(0), nil, "states 0 algorithms", ""},
		"4,294,967,295 algorithms":     {head(1<<32-1, 0x0b, 32), nil, "algorithms", ""},
		"fewer algorithms":             {head(3, 0x0b, 32), nil, "within its algorithms", ""},
		"an unknown algorithm":         {head(1, 0x1234, 32), nil, "algorithm 0x1234", ""},
		"one that looks like SHA-256":  {head(1, 0x010b, 32), nil, "algorithm 0x010b", ""},
		"another size":                 {head(1, 0x0b, 0xffff), nil, "with 65535 bytes", ""},
		"an algorithm twice":           {head(2, 0x0b, 32, 0x0b, 32), nil, "algorithm 0x000b", ""},
		"too many events":              {append(bytes.Clone(good), many...), nil, "more than 16384 events", ""},
		"a digest too many":            {append(bytes.Clone(good), 0, 0, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255), nil, "4294967295 digests", ""},
		"a digest of another":          {append(bytes.Clone(good), 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 4, 0), nil, "unknown or there twice", ""},
		"cut within digests":           {append(bytes.Clone(good), 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0), nil, "within the digests", ""},
		"cut":                          {append(bytes.Clone(good), secureBoot[:len(secureBoot)-1]...), nil, "ends within event 1", ""},
		"large data":                   {append(append(bytes.Clone(good), secureBoot[:46]...), 255, 255, 255, 255), nil, "ends within event 1", ""},
		"an unknown type":              {nil, nil, "", "unknown type 0x99"},
		"a driver of no bytes":         {nil, nil, "", "too short"},
		"no variable":                  {nil, nil, "", "is no variable"},
		"a long variable":              {nil, nil, "", "longer than the event"},
		"a signature of no bytes":      {nil, nil, "", "malformed"},
		"a signature of 4 GB":          {nil, nil, "", "malformed"},
		"a list of no bytes":           {nil, nil, "", "malformed"},
		"a list of 4 GB":               {nil, nil, "", "malformed"},
		"a list with a header":         {nil, nil, "", "malformed"},
		"no Secure Boot":               {nil, nil, "", "did not measure it"},
		"no Secure Boot of the driver": {nil, nil, "", "did not measure it"},
		"Secure Boot twice":            {nil, nil, "", "duplicate"},
		"SM3 alone":                    {head(1, 0x12, 32), nil, "didn't use sha1", ""},
	} {
		events := map[string][][]byte{
			"a driver of no bytes": {secureBoot, event(7, 0x80000004, nil)}, "no variable": {secureBoot, event(7, 0x80000001, []byte("x"))},
			"an unknown type": {secureBoot, event(7, 0x99, nil)}, "a long variable": {secureBoot, event(7, 0x80000001, variable("x", 1<<20, nil))},
			"a signature of no bytes": {secureBoot, db(list(128, 0, 0))}, "a signature of 4 GB": {secureBoot, db(list(128, 0, 1<<32-1))},
			"a list of no bytes": {secureBoot, db(list(0, 0, 50))}, "a list of 4 GB": {secureBoot, db(list(1<<32-1, 0, 50))},
			"a list with a header": {secureBoot, db(list(128, 50, 50))}, "no Secure Boot": {event(7, 4, make([]byte, 4))},
			"no Secure Boot of the driver": {event(7, 0x80000002, variable("SecureBoot", 1, []byte{1}))}, "Secure Boot twice": {secureBoot, secureBoot},
		}[name]
		if events != nil {
			tt.log, tt.pcrs = append(bytes.Clone(good), bytes.Join(events, nil)...), extended(events...)
		}
		boot, err := replay(tt.log, tt.pcrs)
		if (err != nil) != (tt.refused != "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
			t.Errorf("%s: %v, want %q", name, err, tt.refused)
		}
		if err == nil && (boot.SecureBoot != "" || len(boot.NotRead) != 1 || !strings.Contains(boot.NotRead[0], tt.notRead) || len(boot.Explained) != 1) {
			t.Errorf("%s: %+v, want %q", name, boot, tt.notRead)
		}
	}
	for _, blank := range []byte{0, 0xff} { // what nothing was written to
		padded := append(append(bytes.Clone(good), secureBoot...), bytes.Repeat([]byte{blank}, 15<<20)...)
		if boot, err := replay(padded, extended(secureBoot)); err != nil || len(boot.Explained) != 1 {
			t.Errorf("padding: %+v, %v", boot, err)
		}
		padded[len(padded)-9] ^= 1
		if _, err := replay(padded, nil); err == nil {
			t.Errorf("padding of %#x with something in it is taken", blank)
		}
	}
	sound := [][]byte{event(7, 0x80000001, variable("SecureBoot", 1, []byte{0})), event(7, 4, make([]byte, 4)), event(1, 0x99, nil)}
	if boot, err := replay(append(bytes.Clone(good), bytes.Join(sound, nil)...), extended(sound...)); err != nil || boot.SecureBoot != "off" || boot.NotRead != nil {
		t.Errorf("a sound one: %+v, %v", boot, err)
	}
}

// addsUp are the PCRs of a bank that a log adds up to, as if a TPM had signed them.
func addsUp(log *tcg.EventLog, bank string, hash crypto.Hash) (pcrs []evidence.PCR) {
	values, locality := make(map[int][]byte), byte(0)
	for _, e := range log.Events(register.HashAlg(map[string]uint8{"sha1": 4, "sha256": 0x0b, "sha384": 0x0c}[bank])) {
		if of, ok := bytes.CutPrefix(e.Data, []byte("StartupLocality\x00")); ok && e.Type == noAction && len(of) == 1 {
			locality = of[0]
		}
		if e.Type == noAction || e.Digest == nil || e.Index > 23 || e.Index < 0 {
			continue
		}
		if values[e.Index] == nil {
			values[e.Index] = make([]byte, hash.Size())
			if e.Index == 0 {
				values[0][hash.Size()-1] = locality
			}
		}
		h := hash.New()
		h.Write(values[e.Index])
		h.Write(e.Digest)
		values[e.Index] = h.Sum(nil)
	}
	for _, i := range slices.Sorted(maps.Keys(values)) {
		pcrs = append(pcrs, evidence.PCR{Bank: bank, Index: i, Value: values[i]})
	}
	return pcrs
}

// FuzzReplay has every log, with the PCRs that it adds up to, end in bounds.
func FuzzReplay(f *testing.F) {
	for _, name := range machines {
		log, _ := machine(f, name, "sha1")
		f.Add(log)
	}
	for _, name := range []string{"keylime", "keylime-secureboot", "option_rom_eventlog", "sb_cert_eventlog", "short_no_action_eventlog"} {
		f.Add(other(f, name))
	}
	f.Add(append(head(1, 0x0b, 32), event(7, 0x80000001, variable("db", 0, nil))...))
	f.Fuzz(func(t *testing.T, log []byte) {
		if _, err := framed(log); err != nil {
			if _, err := replay(log, nil); err == nil {
				t.Fatal("taken out of bounds")
			}
			return
		}
		parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{})
		if err != nil {
			return
		}
		for bank, hash := range banks {
			pcrs := addsUp(parsed, bank, hash)
			if _, err := replay(log, pcrs); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What is not one gzip of a log is not replayed.
func TestReplayRefuses(t *testing.T) {
	zipped := func(log []byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(log)
		z.Close()
		return b.Bytes()
	}
	log, pcrs := machine(t, "debian-13-ovmf-off", "sha256")
	good := zipped(log)
	for name, tt := range map[string]struct {
		packed []byte
		reason string
	}{
		"no gzip":    {log, "gzip: invalid header"},
		"cut":        {good[:len(good)-1], "unexpected EOF"},
		"a bomb":     {zipped(make([]byte, maxLog+1)), "more than 16777216 bytes"},
		"more of it": {append(bytes.Clone(good), good...), "something follows it"},
	} {
		if _, err := (Replayer{}).Replay(tt.packed, pcrs); err == nil || !strings.Contains(err.Error(), tt.reason) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if boot, err := (Replayer{}).Replay(good, pcrs); err != nil || len(boot.Explained) != len(pcrs) {
		t.Errorf("%v, %+v", err, boot)
	}
}

// What a policy does not allow is refused, and what it cannot judge is no pass.
func TestPolicy(t *testing.T) {
	least := func(version uint32) *attestpb.Policy {
		return &attestpb.Policy{Platform: &attestpb.PlatformPolicy{MinimumGceFirmwareVersion: version}}
	}
	for _, tt := range []struct {
		name, machine     string
		policy            *attestpb.Policy
		pcrs              []int
		refused, unjudged string
	}{
		{"none", "rhel8-uefi", nil, []int{0, 7}, "", ""},
		{"allowed", "rhel8-uefi", least(1), []int{0, 7}, "", ""},
		{"refused", "rhel8-uefi", least(99), []int{0, 7}, "GCE", ""},
		{"PCR 0 is not quoted", "rhel8-uefi", least(1), []int{7}, "", "not quoted or not explained"},
		{"a version that cannot be read", "gdc-host", least(1), []int{0, 7}, "", "invalid SCRTM version event"},
		{"none, and such a version", "gdc-host", nil, []int{0, 7}, "", ""},
	} {
		log, pcrs := machine(t, tt.machine, "sha256")
		boot, err := Replayer{Policy: tt.policy}.replay(log, of(pcrs, tt.pcrs...))
		if err != nil || !says(boot.Policy.Refused, tt.refused) || !says(boot.Policy.Unjudged, tt.unjudged) || len(boot.Explained) != len(tt.pcrs) {
			t.Errorf("%s: %v, %+v", tt.name, err, boot)
		}
	}
	if p := (Replayer{Policy: least(1)}).judge(&gepb.PlatformState{Technology: 99}); p.Refused != "" || !says(p.Unjudged, "unsupported") {
		t.Errorf("what no message of go-tpm-tools can hold: %+v", p)
	}
}

// says reports whether a text has some words, or is empty where there are none.
func says(text, words string) bool {
	return (text == "") == (words == "") && strings.Contains(text, words)
}

// TestLoaders names the programs that were started, once for all banks.
func TestLoaders(t *testing.T) {
	log, pcrs := machine(t, "rhel8-uefi", "sha256")
	one, err := replay(log, pcrs)
	if err != nil || len(one.Loaders) != 3 || one.Loaders[0].Path != `\EFI\redhat\shimx64.efi` || one.Loaders[1].Path != `\EFI\redhat\grubx64.efi` {
		t.Errorf("%v, %+v", err, one.Loaders)
	}
	_, other := machine(t, "rhel8-uefi", "sha1")
	first, err := replay(log, other)
	if err != nil {
		t.Fatal(err)
	}
	both, err := replay(log, append(slices.Clone(pcrs), other...))
	if err != nil || !reflect.DeepEqual(both, first) {
		t.Errorf("%v, of two banks %+v, of one %+v", err, both, first)
	}
	unknown := [][]byte{event(4, 0x99, nil), event(5, 4, make([]byte, 4))}
	boot, err := replay(append(head(1, 0x0b, 32), bytes.Join(unknown, nil)...), extended(unknown...))
	if err != nil || len(boot.NotRead) != 1 || !strings.Contains(boot.NotRead[0], "the boot loader is not shown: event") || len(boot.Loaders) > 0 {
		t.Errorf("%v, %+v", err, boot)
	}
}

// TestAfter says what came after the separators of PCRs 0 to 7, up to a bound.
func TestAfter(t *testing.T) {
	separator := func(pcr uint32) []byte { return event(pcr, 4, make([]byte, 4)) }
	late := event(4, 5, []byte("late"))
	for name, tt := range map[string]struct {
		events       [][]byte
		after, words int
	}{
		"before":       {[][]byte{late, separator(4)}, 0, 0},
		"after":        {[][]byte{separator(4), late}, 1, 0},
		"of another":   {[][]byte{separator(3), late}, 0, 0},
		"of PCR 8":     {[][]byte{separator(8), event(8, 5, nil)}, 0, 0},
		"the most":     {append([][]byte{separator(4)}, slices.Repeat([][]byte{late}, maxAfter)...), maxAfter, 0},
		"one too many": {append([][]byte{separator(4)}, slices.Repeat([][]byte{late}, maxAfter+1)...), maxAfter, 1},
	} {
		boot, err := replay(append(head(1, 0x0b, 32), bytes.Join(tt.events, nil)...), extended(tt.events...))
		if err != nil || len(boot.After) != tt.after || len(boot.NotRead) != tt.words {
			t.Errorf("%s: %v, %d after, not read %q", name, err, len(boot.After), boot.NotRead)
		}
	}
}

// The largest logs that are read at all take no more memory than some times their
// size, in as many steps as they have events.
func TestLargest(t *testing.T) {
	secureBoot := event(7, 0x80000001, variable("SecureBoot", 1, []byte{1}))
	good := append(head(1, 0x0b, 32), secureBoot...)
	fill := func(e []byte) []byte {
		n := min((maxLog-len(good))/len(e), maxEvents-1)
		return append(bytes.Clone(good), bytes.Repeat(e, n)...)
	}
	for name, log := range map[string][]byte{
		"events":    fill(event(7, 5, make([]byte, 974))),
		"variables": fill(event(7, 0x80000001, variable("db", 900, make([]byte, 900)))),
		"one":       fill(event(7, 5, make([]byte, maxLog-len(good)-50))),
		"programs":  fill(event(4, 0x80000003, bytes.Repeat([]byte{4, 4, 5, 0, 'a'}, 195))),
	} {
		if len(log) < maxLog*9/10 {
			t.Errorf("%s: %d bytes only", name, len(log))
		}
		parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{})
		if err != nil {
			t.Fatal(err)
		}
		pcrs := addsUp(parsed, "sha256", crypto.SHA256)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		boot, err := replay(log, pcrs)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 16*maxLog || err != nil || len(boot.Explained) != len(pcrs) {
			t.Errorf("%s: %d MB in all, %v, %v", name, used>>20, err, boot.Explained)
		}
	}
}
