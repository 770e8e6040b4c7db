package tis

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var mutate = flag.Bool("mutations", false, "put each mistake into the source in turn and run the tests, of which one has to fail: make conditions")

// mutations are mistakes that a driver may have; each is put into the source,
// alone.
var mutations = []struct{ name, file, from, to string }{
	{"burst count in the wrong byte order", "register.go", "int(binary.LittleEndian.Uint16(b[1:]))", "int(binary.BigEndian.Uint16(b[1:]))"},
	{"burst count ignored in writing", "fifo.go", "n := min(s.burst, c.bus.burst(), len(left))", "n := min(c.bus.burst(), len(left))"},
	{"burst count ignored in reading", "fifo.go", "min(n+s.burst, n+c.bus.burst(), len(response))", "min(n+c.bus.burst(), len(response))"},
	{"a chip that wakes up not waited for", "register.go", "err = c.poll(timeoutD, func", "err = c.poll(0, func"},
	{"no release", "fifo.go", "[]byte{accessActive}", "[]byte{0}"},
	{"no request", "tis.go", "err := c.request()", "err := error(nil)"},
	{"locality compared, not masked", "fifo.go", "return a&(accessValid|accessActive) == ", "return a == "},
	{"commandReady said once", "fifo.go", "return false, c.bus.write(regStatus, []byte{statusReady})", "return false, nil"},
	{"stsValid ignored in writing", "fifo.go", "if s, err = c.await(timeoutC, func(s status) bool { return s.has(statusValid) })", "if s, err = c.await(timeoutC, func(s status) bool { return true })"},
	{"expect ignored", "fifo.go", "s.has(statusExpect) != more", "false && more"},
	{"dataAvail ignored in reading", "fifo.go", "s.has(statusValid|statusAvail) && s.burst > 0", "s.burst > 0"},
	{"dataAvail ignored at the end", "fifo.go", "\tif s.has(statusAvail) {", "\tif s.has(statusAvail) && false {"},
	{"length not checked", "fifo.go", "size < headerLen || size > maxFrame", "size < headerLen"},
	{"response not asked for again", "tis.go", "[]byte{statusRetry}", "[]byte{0}"},
	{"key creation as short as others", "tis.go", "return max(c.timeout, keyCreation)", "return c.timeout"},
	{"checksum off", "fifo.go", "ok && theirs != ours", "ok && theirs != ours && false"},
	{"checksum of another polynomial", "fifo.go", "0x8408", "0xa001"},
	{"checksum in the wrong byte order", "i2c.go", "binary.BigEndian.Uint16(sum)", "binary.LittleEndian.Uint16(sum)"},
	{"checksum not enabled", "i2c.go", "b.set(regChecksumEnable, 1)", "b.set(regChecksumEnable, 0)"},
	{"locality not selected", "i2c.go", "b.set(regLocality, 0)", "error(nil)"},
	{"capabilities at the address of SPI", "i2c.go", "register{i2c: 0x30}", "register{i2c: 0x14}"},
	{"guard time not kept", "i2c.go", "time.Sleep(time.Until(b.free))", ""},
	{"message too long", "i2c.go", "maxMessage = 32", "maxMessage = 33"},
	{"register not said again", "i2c.go", "\t\treturn b.message(nil, data, &b.afterRead)", "\t\treturn b.untilTaken(func() error { return b.message(nil, data, &b.afterRead) })"},
	{"wait states ignored", "spi.go", "answer[len(answer)-1]&1 == 0", "false"},
	{"chip select let go", "spi.go", "{W: header, R: answer, KeepCS: true}", "{W: header, R: answer}"},
	{"frame one byte too long", "spi.go", "byte(len(w)-1)", "byte(len(w))"},
	{"address in the wrong byte order", "spi.go", "byte(r.spi >> 8), byte(r.spi)", "byte(r.spi), byte(r.spi >> 8)"},
}

// The tests of this package find each mistake, and each can still be made.
func TestMutations(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			source, err := os.ReadFile(m.file)
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(source, []byte(m.from)); n != 1 {
				t.Fatalf("%q is %d times in %s", m.from, n, m.file)
			}
			if !*mutate {
				return
			}
			dir := t.TempDir()
			mutant, overlay := filepath.Join(dir, m.file), filepath.Join(dir, "overlay.json")
			if err := os.WriteFile(mutant, bytes.Replace(source, []byte(m.from), []byte(m.to), 1), 0o600); err != nil {
				t.Fatal(err)
			}
			original, err := filepath.Abs(m.file)
			if err != nil {
				t.Fatal(err)
			}
			replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: mutant}})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(overlay, replace, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("go", "test", "-overlay", overlay, "-vet=off", "-failfast", "-timeout=2m", "-skip=Mutations|QEMU|CRC|GuardTimes|Fuzz", ".").CombinedOutput()
			if err == nil {
				t.Error("no test noticed")
			} else if !strings.Contains(string(out), "--- FAIL: Test") { // not built, killed, or out of time: nobody noticed either
				t.Errorf("no test failed: %v\n%s", err, out)
			}
		})
	}
}
