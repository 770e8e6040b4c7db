//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// patience is how long anything that has to come is waited for, also on a busy host.
const patience = 20 * time.Minute

// host is the name by which a machine knows the host's loopback.
const host = "iot.keyvet.test"

// machine is an emulated device with a disk and a TPM of its own. What it says
// on its serial port is kept, boot by boot.
type machine struct {
	t     *testing.T
	name  string
	dir   string
	board board
	bare  bool     // it has no TPM
	extra []string // further words for QEMU
	linux string   // further words for the kernel, of which the last ones count
	uefi  []string // words for QEMU by which firmware loads the kernel, in place of QEMU
	boots int
	port  string // of the host, behind which is a shell of the machine

	console    *console
	qemu, chip *process
}

// board is a machine as QEMU makes it.
type board struct {
	image   string   // the environment variable that names the folder of disk and kernel
	qemu    []string // the program, and what sets the board apart
	console string   // the first serial port, as Linux calls it
}

var (
	tis = board{"KEYVET_E2E_AMD64", []string{"qemu-system-x86_64", "-machine", "q35", "-cpu", "max", "-device", "tpm-tis,tpmdev=tpm0"}, "ttyS0"}
	crb = board{"KEYVET_E2E_AMD64", []string{"qemu-system-x86_64", "-machine", "q35", "-cpu", "max", "-device", "tpm-crb,tpmdev=tpm0"}, "ttyS0"}
	arm = board{"KEYVET_E2E_ARM64", []string{"qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a57", "-device", "tpm-tis-device,tpmdev=tpm0"}, "ttyAMA0"}
)

// file is one that e2e/image has made.
func (b board) file(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv(b.image)
	if dir == "" {
		t.Fatalf("%s does not name the folder that e2e/image prints: run this by make e2e", b.image)
	}
	return filepath.Join(dir, name)
}

// newMachine builds a machine with a TPM as its maker delivers it.
func newMachine(t *testing.T, name string, board board) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, name: name, dir: dir, board: board}
	t.Cleanup(func() {
		if m.qemu != nil {
			m.cut()
		}
		os.RemoveAll(dir)
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	chip, err := tpmtest.Start(ctx, tpmtest.Options{Dir: filepath.Join(dir, "tpm")})
	if err == nil {
		err = chip.Stop()
	}
	if err != nil {
		t.Fatal(err)
	}
	m.run("cp", "--sparse=always", board.file(t, "disk.ext4"), m.disk())
	return m
}

func (m *machine) disk() string { return filepath.Join(m.dir, "disk") }

// run runs a program of the host.
func (m *machine) run(name string, args ...string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		m.t.Fatalf("%s %q: %v", name, args, err)
	}
	return string(out)
}

// put writes a file into the disk of a machine that is off, as the maker of a
// device would. It is the user keyvet's, and nobody else may read it.
func (m *machine) put(path string, content []byte) {
	m.t.Helper()
	uid, gid := m.owner()
	source := filepath.Join(m.dir, "put")
	if err := os.WriteFile(source, content, 0o600); err != nil {
		m.t.Fatal(err)
	}
	var script strings.Builder
	for i, r := range path {
		if dir := path[:i]; r == '/' && i > 0 && !strings.Contains(m.debugfs("stat "+dir), "Inode:") {
			fmt.Fprintf(&script, "mkdir %s\nsif %[1]s mode 040700\nsif %[1]s uid %d\nsif %[1]s gid %d\n", dir, uid, gid)
		}
	}
	if strings.Contains(m.debugfs("stat "+path), "Inode:") {
		fmt.Fprintf(&script, "rm %s\n", path)
	}
	fmt.Fprintf(&script, "write %s %s\nsif %[2]s mode 0100600\nsif %[2]s uid %d\nsif %[2]s gid %d\n", source, path, uid, gid)
	commands := filepath.Join(m.dir, "commands")
	if err := os.WriteFile(commands, []byte(script.String()), 0o600); err != nil {
		m.t.Fatal(err)
	}
	m.run("debugfs", "-w", "-f", commands, m.disk())
	if got := m.debugfs("cat " + path); got != string(content) { // debugfs ends with 0 whatever happens
		m.t.Fatalf("%s is not on the disk: %q", path, got)
	}
}

func (m *machine) debugfs(command string) string {
	m.t.Helper()
	return m.run("debugfs", "-R", command, m.disk())
}

// owner is the user that keyvet runs as.
func (m *machine) owner() (uid, gid int) {
	m.t.Helper()
	users := m.debugfs("cat /etc/passwd")
	user := regexp.MustCompile(`(?m)^keyvet:[^:]*:(\d+):(\d+):`).FindStringSubmatch(users)
	if user == nil {
		m.t.Fatalf("the image has no user keyvet:\n%s", users)
	}
	uid, _ = strconv.Atoi(user[1])
	gid, _ = strconv.Atoi(user[2])
	return uid, gid
}

// on switches the machine on.
func (m *machine) on() {
	m.t.Helper()
	m.boots++
	path := func(name string) string { return filepath.Join(m.dir, name) }
	os.Remove(path("tpm.ctrl"))
	log, err := os.Create(filepath.Join(m.t.ArtifactDir(), fmt.Sprintf("%s-boot%d.log", m.name, m.boots)))
	if err != nil {
		m.t.Fatal(err)
	}
	m.port = m.freePort()
	m.console = &console{file: log, changed: make(chan struct{})}
	chip := []string{"-chardev", "socket,id=chip,path=" + path("tpm.ctrl"), "-tpmdev", "emulator,id=tpm0,chardev=chip"}
	words := slices.Clone(m.board.qemu)
	if m.bare {
		i := slices.Index(words, "-device")
		words, chip = slices.Delete(words, i, i+2), nil
	}
	m.chip = m.spawn(nil, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+path("tpm/state"), "--ctrl", "type=unixio,path="+path("tpm.ctrl"))
	m.await(path("tpm.ctrl"), m.chip)
	boot := m.uefi
	if boot == nil {
		boot = []string{"-kernel", m.board.file(m.t, "vmlinuz"), "-append", m.commandLine()}
	}
	m.qemu = m.spawn(m.console, words[0], slices.Concat(words[1:], chip, boot, m.extra, strings.Fields(os.Getenv("KEYVET_E2E_QEMU")), []string{
		"-accel", "tcg", "-m", "384", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-drive", "file=" + m.disk() + ",format=raw,if=none,id=disk", "-device", "nvme,drive=disk,serial=disk",
		"-netdev", "user,id=net,hostfwd=tcp:" + m.port + "-:2323", "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci",
	})...)
}

// commandLine is the kernel's.
func (m *machine) commandLine() string {
	return "root=/dev/nvme0n1 rw quiet panic=-1 systemd.journald.forward_to_console=1 systemd.show_status=0 console=" + m.board.console + " " + m.linux
}

// reboot has the system shut down and boot again.
func (m *machine) reboot() {
	m.t.Helper()
	late := time.After(patience)
	for off := false; !off; {
		_, _ = m.ask("systemctl reboot --no-block") // the shell may go before it answers
		select {
		case <-m.qemu.ended:
			off = true
		case <-late:
			m.t.Fatalf("%s does not shut down:\n%s", m.name, m.console.tail())
		case <-time.After(5 * time.Second):
		}
	}
	m.cut()
	m.on()
}

// cut takes the power away.
func (m *machine) cut() {
	m.qemu.kill()
	m.chip.kill()
	m.qemu = nil
	m.console.file.Close()
}

// says waits until the serial port has said, in this boot, what fits the
// pattern, and returns the submatches.
func (m *machine) says(pattern string) []string {
	m.t.Helper()
	match, err := m.console.wait(regexp.MustCompile(pattern), m.qemu.ended)
	if err != nil {
		m.t.Fatalf("%s, boot %d: waiting for %q: %v\n%s", m.name, m.boots, pattern, err, m.console.tail())
	}
	return match
}

// said reports whether the serial port has said, in this boot, what fits the pattern.
func (m *machine) said(pattern string) bool {
	return regexp.MustCompile(pattern).MatchString(m.console.String())
}

// shell runs a command as root in the machine and returns what it says. Until
// the machine's network is up it is tried again.
func (m *machine) shell(command string) string {
	m.t.Helper()
	late := time.After(patience)
	for {
		out, err := m.ask(command)
		if err == nil {
			return out
		}
		select {
		case <-m.qemu.ended:
			m.t.Fatalf("%s: shell: %s: the machine is off", m.name, command)
		case <-late:
			m.t.Fatalf("%s: shell: %s: %v: %q", m.name, command, err, out)
		case <-time.After(time.Second):
		}
	}
}

func (m *machine) ask(command string) (string, error) {
	const end = "end of e2e"
	conn, err := net.Dial("tcp", m.port)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience / 2))
	fmt.Fprintf(conn, "{ %s\n} 2>&1\necho %s\nexit\n", command, end)
	b, err := io.ReadAll(io.LimitReader(conn, 1<<20))
	out, whole := strings.CutSuffix(strings.TrimSpace(string(b)), end)
	if !whole {
		return out, fmt.Errorf("broke off: %v", err)
	}
	return strings.TrimSpace(out), nil
}

// freePort is an address of the host that nobody listens on.
func (m *machine) freePort() string {
	m.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// process is a program that runs beside the test and ends with it.
type process struct {
	cmd    *exec.Cmd
	ended  chan struct{}
	output bytes.Buffer // to be read when it has ended
}

func (m *machine) spawn(stdout *console, name string, args ...string) *process {
	m.t.Helper()
	p := &process{cmd: exec.Command(name, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		// The death signal is sent when the thread ends that started the child.
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		m.t.Fatal(err)
	}
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// await returns when the process has made its socket.
func (m *machine) await(socket string, p *process) {
	m.t.Helper()
	for {
		sockets, err := os.ReadFile("/proc/net/unix")
		if err != nil {
			m.t.Fatal(err)
		}
		if bytes.Contains(sockets, []byte(" "+socket+"\n")) {
			return
		}
		select {
		case <-p.ended:
			m.t.Fatalf("%s: %s", p.cmd.Path, &p.output)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
