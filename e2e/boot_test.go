//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

// imageFiles returns what the build of an image makes of its variables, by path.
func imageFiles(t *testing.T, variables ...string) map[string][]byte {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "run", "../cmd/keyvet/internal/image", "write", dir)
	build.Env = append(os.Environ(), variables...)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	files := make(map[string][]byte)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files[strings.TrimPrefix(path, dir)], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// bake puts an image's configuration into the machine, in place of the package's.
func (m *machine) bake(cloud *localiot.Server, variables ...string) {
	m.t.Helper()
	files := imageFiles(m.t, append([]string{
		"KEYVET_THING_NAME=" + m.name, "KEYVET_ENDPOINTS=" + cloud.Endpoint(), "KEYVET_CA_FILE=/etc/keyvet/ca.pem", "KEYVET_IDENTITY_CA=/etc/keyvet/ca.pem",
	}, variables...)...)
	for _, packaged := range []string{"/etc/systemd/system/keyvet.service.d/10-tpm.conf", "/etc/tmpfiles.d/keyvet-state.conf"} {
		m.put(packaged, []byte("# not of this image\n"))
	}
	m.put("/etc/keyvet/ca.pem", cloud.CAPEM())
	for path, content := range files {
		m.put(path, content)
	}
}

// TestLateState is a device with a read-only root, whose state is on a mount that
// boot does not wait for (nofail) and that comes later than all of that: the first
// boot makes its key and enrols, the second goes on with it.
func TestLateState(t *testing.T) {
	t.Parallel()
	cloud := startCloud(t)
	m := newMachine(t, "late", tis)
	key := newKey(t)
	chain, err := cloud.IssueClaim(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	m.pair("/etc/factory/", chain, key)
	m.bake(cloud, "KEYVET_TPM_ADDRESS=/dev/tpmrm0", "KEYVET_STATE_DIR=/data/keyvet",
		"KEYVET_PROVISION_TEMPLATE="+localiot.Template, "KEYVET_PROVISION_PARAMETERS=ThingName="+m.name,
		"KEYVET_CLAIM_CERTIFICATE=/etc/factory/certificate.pem", "KEYVET_CLAIM_KEY=/etc/factory/key.pem")
	m.put("/etc/fstab", []byte("/dev/nvme0n1 / ext4 ro 0 0\n/dev/vda /data ext4 nofail,x-systemd.requires=e2e-late.service 0 2\n"))
	m.put("/etc/systemd/system/e2e-late.service", []byte("[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 15\n"))
	m.put("/data/.keep", nil)
	data := filepath.Join(m.dir, "data")
	m.run("truncate", "-s", "64M", data)
	m.run("mke2fs", "-q", "-t", "ext4", data)
	m.extra = []string{"-drive", "file=" + data + ",format=raw,if=none,id=data", "-device", "virtio-blk-pci,drive=data"}
	m.linux = "ro"

	for _, trigger := range []device.Trigger{device.TriggerFirstBoot, device.TriggerBoot} {
		if m.boots == 0 {
			m.on()
		} else {
			m.reboot()
		}
		m.trusted(cloud, trigger)
		m.bootTable()
		// A disk that takes more than systemd's patience for it is waited for by starting again.
		if failed := m.shell("journalctl -b -o cat | grep -E 'keyvet.*Read-only file system' || true"); failed != "" {
			t.Errorf("trigger %s: %s", trigger, failed)
		}
		if state := m.shell("stat -c '%U %a %m' /data/keyvet/credentials; test -e /var/lib/keyvet && echo there"); state != "keyvet 700 /data" {
			t.Errorf("trigger %s: the state is %q", trigger, state)
		}
	}
	if active := active(cloud.Certificates(m.name)); active != 1 {
		t.Errorf("%d certificates are active after two boots: %v", active, cloud.Certificates(m.name))
	}
}

func active(certificates []localiot.Certificate) (n int) {
	for _, c := range certificates {
		if c.Status == localiot.Active {
			n++
		}
	}
	return n
}

// TestNoTPM is a machine without a TPM, which waits for none.
func TestNoTPM(t *testing.T) {
	t.Parallel()
	cloud := startCloud(t)
	m := newMachine(t, "bare", tis)
	m.bare = true
	m.enrol(cloud, newKey(t))
	m.bake(cloud, "KEYVET_TPM_ADDRESS=")
	m.on()
	if r := m.report(cloud, device.TriggerFirstBoot); !r.Verdict().Opens() {
		t.Errorf("verdict %s, %v", r.Verdict(), r.ReasonCodes())
	}
	m.says(`Reached target keyvet-trusted\.target`)
	m.says(`Reached target multi-user\.target`)
	m.bootTable()
	if m.said(`Timed out waiting for device|dev-tpmrm0`) {
		t.Errorf("it waited for a TPM:\n%s", m.console.tail())
	}
}

// TestBusybox is an image without systemd, whose init is busybox.
func TestBusybox(t *testing.T) {
	m := withoutSystemd(t, "busybox")
	m.put("/etc/inittab", []byte(`::sysinit:/e2e/busybox sh /e2e/rcS
::once:/e2e/busybox sh /e2e/start
::respawn:/e2e/busybox nc -ll -p 2323 -e /e2e/busybox sh
`))
	m.link("/e2e/init", "/e2e/busybox")
	m.behindTheGate()
}

// TestSysvinit is one whose init is that of System V.
func TestSysvinit(t *testing.T) {
	m := withoutSystemd(t, "sysvinit")
	init, err := os.ReadFile(m.board.file(t, "init"))
	if err != nil {
		t.Fatal(err)
	}
	m.put("/e2e/init", init)
	m.executable("/e2e/init")
	m.put("/etc/inittab", []byte(`id:2:initdefault:
si::sysinit:/e2e/busybox sh /e2e/rcS
l2:2:wait:/e2e/busybox sh /e2e/start
sh:2:respawn:/e2e/busybox nc -ll -p 2323 -e /e2e/busybox sh
`))
	m.behindTheGate()
}

// withoutSystemd is a machine with a claim, the init script of packaging and, for
// what an image's own scripts would do, busybox.
func withoutSystemd(t *testing.T, name string) *machine {
	t.Parallel()
	m := newMachine(t, name, tis)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("../packaging/sysvinit/keyvet")
	if err != nil {
		t.Fatal(err)
	}
	m.put("/e2e/busybox", busybox)
	m.put("/e2e/keyvet", script)
	m.put("/e2e/rcS", []byte(`#!/e2e/busybox sh
b=/e2e/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
$b mount -t tmpfs run /run; $b mount -t tmpfs tmp /tmp
$b mkdir -p /sbin-e2e
for m in failover net_failover virtio_net tpm_tis; do $b modprobe $m 2>/dev/null; done
for i in 1 2 3 4 5 6 7 8 9 10; do $b ls /sys/class/net | $b grep -qv '^lo$' && break; $b sleep 1; done
$b ip link set lo up
for i in $($b ls /sys/class/net | $b grep -v '^lo$'); do $b ip link set $i up; $b ip addr add 10.0.2.15/24 dev $i; done
$b ip route add default via 10.0.2.2
`))
	m.put("/e2e/start", []byte(`#!/e2e/busybox sh
b=/e2e/busybox
exec >/dev/console 2>&1
$b sh /e2e/keyvet start
keyvet wait -timeout 1s; echo "e2e: waited in vain: $?"
(keyvet wait && echo "e2e: the appliance runs, $($b cat /run/keyvet/trusted | $b cut -c 1-20)") &
`))
	m.executable("/e2e/busybox")
	m.linux = "init=/e2e/init PATH=/usr/sbin:/usr/bin:/sbin:/bin"
	return m
}

// behindTheGate sees the init script start the agent, keyvet wait hold the appliance
// back until the gate is open, and the agent come again when it is killed.
func (m *machine) behindTheGate() {
	t := m.t
	cloud := startCloud(t)
	m.claim(cloud)
	m.on()
	m.says(`e2e: waited in vain: 3`)
	if r := m.report(cloud, device.TriggerFirstBoot); !r.Verdict().Opens() || r.Evidence == nil {
		t.Errorf("verdict %s, %v", r.Verdict(), r.ReasonCodes())
	}
	m.says(`e2e: the appliance runs, \{"reportId"`)
	// The agent is killed: its mark goes, and it comes again.
	before := m.shell("/e2e/busybox pidof keyvet")
	m.shell("kill -9 " + before)
	m.shell("keyvet wait -timeout 2m")
	if after := m.shell("/e2e/busybox pidof keyvet"); after == before || after == "" {
		t.Errorf("the agent is %q, was %q", after, before)
	}
	m.shell("/e2e/busybox sh /e2e/keyvet stop")
	if left := m.shell("ls /run/keyvet; /e2e/busybox pidof keyvet"); strings.Contains(left, "trusted") || strings.Contains(left, "identity") {
		t.Errorf("stopped, it leaves %q", left)
	}
}

// executable lets everybody run a file of a machine that is off.
func (m *machine) executable(path string) {
	m.t.Helper()
	m.run("debugfs", "-w", "-R", "sif "+path+" mode 0100755", m.disk())
	m.run("debugfs", "-w", "-R", "sif "+path+" uid 0", m.disk())
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		m.run("debugfs", "-w", "-R", "sif "+dir+" mode 040755", m.disk())
	}
}

// link makes a symbolic link in a machine that is off.
func (m *machine) link(path, target string) {
	m.t.Helper()
	m.run("debugfs", "-w", "-R", "symlink "+path+" "+target, m.disk())
}

// bootTable logs when a boot came where, in seconds of the kernel's.
func (m *machine) bootTable() {
	m.t.Helper()
	at := func(pattern string) string { return m.says(`\[ *([0-9.]+)\] ` + pattern)[1] }
	m.t.Logf("%s, boot %d: keyvet starts %s, verdict %s, connected %s, keyvet-trusted.target %s, multi-user.target %s, startup finished %s",
		m.name, m.boots, at(`systemd\[1\]: Starting keyvet\.service`), at(`keyvet\[\d+\]: .*msg=vetted`), at(`keyvet\[\d+\]: .*msg=connected`),
		at(`systemd\[1\]: Reached target keyvet-trusted\.target`), at(`systemd\[1\]: Reached target multi-user\.target`), at(`systemd\[1\]: Startup finished`))
}
