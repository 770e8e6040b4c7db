// Package tpmtest puts up TPMs for tests and demonstrations: the software TPM
// swtpm with endorsement certificates of a CA of its own, a proxy that rewrites
// what a TPM says, and weak keys to put into one.
//
// It does not import testing, so that a program can be built with it. It needs
// the programs swtpm, swtpm_setup and swtpm_localca (Debian: swtpm,
// swtpm-tools), and touches nothing outside its directory.
package tpmtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Options for [Start].
type Options struct {
	// Dir is where state, socket and CA are put; it is made if need be, and
	// stays. Without one, a temporary directory is used and removed by Stop.
	// The path of the control socket, Dir with "/tpm.sock.ctrl", has at most
	// 107 bytes.
	Dir string
	// CopyOf is the Dir of a TPM that has stopped: instead of a new TPM a copy
	// of that one is started, with its seeds, keys, NV and CA, which takes a
	// tenth of the time. What else is here then does not make it another one.
	CopyOf string
	// NoEKCertificates leaves the endorsement keys without certificates.
	NoEKCertificates bool
	// FailureMode starts a TPM in failure mode: most commands fail with
	// TPM_RC_FAILURE, and what TPM2_GetCapability says is wrong.
	FailureMode bool
	// TPM12 starts a TPM 1.2 with an endorsement key, and its certificate in
	// NV that anybody may read. FailureMode is not for it.
	TPM12 bool
	// Owned gives a TPM 1.2 an owner, and a storage root key, whose passwords
	// are 20 zero bytes.
	Owned bool
	// RSA3072 makes the RSA endorsement key one of 3,072 bits, by the template
	// H-6 at 0x8101001c, in place of that of 2,048.
	RSA3072 bool
	// Banks are the PCR banks, "sha256,sha384"; "" for "sha256".
	Banks string
}

// SWTPM is a running swtpm with a TPM of its own.
type SWTPM struct {
	dir     string
	remove  bool
	process *os.Process
	stop    context.CancelFunc
	exited  chan struct{} // closed when the process has ended
	output  *bytes.Buffer // of the process, to be read when it has ended
}

// Start makes the state of a TPM, with persistent endorsement keys RSA-2048 at
// 0x81010001 and P-384 at 0x81010016, and starts it. It runs until Stop, the
// end of ctx or the end of this program, and serves one client at a time.
func Start(ctx context.Context, opts Options) (_ *SWTPM, err error) {
	s := &SWTPM{dir: opts.Dir, exited: make(chan struct{}), output: new(bytes.Buffer)}
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "swtpm"); err != nil {
			return nil, err
		}
		s.remove = true
	}
	defer func() {
		if err != nil && s.remove {
			os.RemoveAll(s.dir)
		}
	}()
	if s.dir, err = filepath.Abs(s.dir); err != nil {
		return nil, err
	}
	if len(s.control()) > 107 { // sun_path of unix(7), less the final NUL
		return nil, fmt.Errorf("%s: too long for a socket", s.control())
	}
	if err := s.manufacture(ctx, opts); err != nil {
		return nil, err
	}
	ctx, s.stop = context.WithCancel(ctx)
	if err := s.start(ctx, opts); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *SWTPM) socket() string { return filepath.Join(s.dir, "tpm.sock") }

// control is where swtpm takes commands about itself.
func (s *SWTPM) control() string { return s.socket() + ".ctrl" }

// Address is where the TPM is to be reached: "unix:" and a path.
func (s *SWTPM) Address() string { return "unix:" + s.socket() }

// TCTI is the address for the tools of tpm2-software, such as tpm2-tools:
// what they take with -T, or in TPM2TOOLS_TCTI.
func (s *SWTPM) TCTI() string { return "swtpm:path=" + s.socket() }

// CAFiles are the PEM files of the CA that issued the endorsement
// certificates: the issuer, then the root.
func (s *SWTPM) CAFiles() []string {
	return []string{filepath.Join(s.dir, "ca", "issuercert.pem"), filepath.Join(s.dir, "ca", "swtpm-localca-rootca-cert.pem")}
}

// manufacture has swtpm_setup make the TPM's state, and the CA on first use, or
// copies them.
func (s *SWTPM) manufacture(ctx context.Context, opts Options) error {
	if opts.CopyOf != "" {
		for _, name := range []string{"state", "ca"} {
			if err := os.CopyFS(filepath.Join(s.dir, name), os.DirFS(filepath.Join(opts.CopyOf, name))); err != nil {
				return err
			}
		}
		return nil
	}
	ca := filepath.Join(s.dir, "ca")
	for _, dir := range []string{ca, filepath.Join(s.dir, "state")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	localca, err := exec.LookPath("swtpm_localca")
	if err != nil {
		return fmt.Errorf("%w: install swtpm and swtpm-tools", err)
	}
	for name, lines := range map[string][]string{
		"setup.conf": {
			"create_certs_tool = " + localca,
			"create_certs_tool_config = " + filepath.Join(s.dir, "localca.conf"),
			"create_certs_tool_options = " + filepath.Join(s.dir, "localca.options"),
			"active_pcr_banks = " + cmp.Or(opts.Banks, "sha256"),
		},
		"localca.conf": {
			"statedir = " + ca,
			"signingkey = " + filepath.Join(ca, "signkey.pem"),
			"issuercert = " + filepath.Join(ca, "issuercert.pem"),
			"certserial = " + filepath.Join(ca, "certserial"),
		},
		"localca.options": {"--platform-manufacturer keyvet", "--platform-version 1", "--platform-model swtpm"},
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			return err
		}
	}
	args := []string{"--config", filepath.Join(s.dir, "setup.conf"), "--tpmstate", "dir://" + filepath.Join(s.dir, "state"), "--overwrite"}
	if opts.NoEKCertificates {
		args = append(args, "--createek")
	} else {
		args = append(args, "--create-ek-cert", "--create-platform-cert")
	}
	if !opts.TPM12 {
		args = append(args, "--tpm2")
		if !opts.NoEKCertificates {
			args = append(args, "--lock-nvram")
		}
	}
	if opts.Owned {
		args = append(args, "--take-ownership", "--owner-well-known", "--srk-well-known")
	}
	if opts.RSA3072 {
		args = append(args, "--rsa-keysize", "3072")
	}
	cmd := exec.CommandContext(ctx, "swtpm_setup", args...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+s.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("swtpm_setup: %w: %s", err, out)
	}
	return nil
}

func (s *SWTPM) start(ctx context.Context, opts Options) error {
	state := filepath.Join(s.dir, "state")
	os.Remove(s.socket()) // of an earlier run
	os.Remove(s.control())
	cmd := exec.CommandContext(ctx, "swtpm", "socket", "--tpmstate", "dir="+state,
		"--server", "type=unixio,path="+s.socket(), "--ctrl", "type=unixio,path="+s.control(), "--flags", "not-need-init,startup-clear")
	if !opts.TPM12 {
		cmd.Args = append(cmd.Args, "--tpm2")
	}
	cmd.Stdout, cmd.Stderr = s.output, s.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		// The death signal is sent when the thread ends that started the child.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(s.exited)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("swtpm: %w", err)
	}
	s.process = cmd.Process
	if err := s.await(ctx); err != nil {
		return err
	}
	if opts.FailureMode {
		return s.fail(state)
	}
	return nil
}

// fail puts the TPM in failure mode: it has to store something and cannot.
func (s *SWTPM) fail(state string) error {
	conn, err := dial(s.Address())
	if err != nil {
		return err
	}
	defer conn.Close()
	// swtpm listens before it has read its state, and ends if that is away by
	// then. An answer, to TPM2_GetRandom, says that it has.
	if _, err := (client{conn}).Send([]byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 1}); err != nil {
		return fmt.Errorf("swtpm: %w", err)
	}
	away := state + ".away"
	if err := errors.Join(os.RemoveAll(away), os.Rename(state, away)); err != nil {
		return err
	}
	// TPM2_DictionaryAttackLockReset by the empty lockout password.
	response, err := client{conn}.Send([]byte{
		0x80, 0x02, 0, 0, 0, 27, 0, 0, 0x01, 0x39, 0x40, 0, 0, 0x0a,
		0, 0, 0, 9, 0x40, 0, 0, 0x09, 0, 0, 0, 0, 0,
	})
	if err != nil {
		return fmt.Errorf("swtpm: %w", err)
	}
	if code := binary.BigEndian.Uint32(response[6:]); code != 0x101 { // TPM_RC_FAILURE
		return fmt.Errorf("swtpm is not in failure mode: it answers %#x", code)
	}
	return nil
}

// await returns when the socket takes connections.
func (s *SWTPM) await(ctx context.Context) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		conn, err := net.Dial("unix", s.socket())
		if err == nil {
			return conn.Close()
		}
		select {
		case <-s.exited:
			return fmt.Errorf("swtpm ended: %s", s.output)
		case <-ctx.Done():
			return fmt.Errorf("swtpm: %w", ctx.Err())
		case <-time.After(pause):
		}
	}
}

// Reset has the TPM start again, as at a boot: what was loaded is gone, and what it
// gave out to be loaded again is of no use any more (TPM Reset: Part 1, on startup).
// Its client has to connect again.
func (s *SWTPM) Reset() error {
	conn, err := net.Dial("unix", s.control())
	if err != nil {
		return fmt.Errorf("swtpm: %w", err)
	}
	defer conn.Close()
	result := make([]byte, 4)
	if _, err := conn.Write([]byte{0, 0, 0, 2, 0, 0, 0, 0}); err != nil { // CMD_INIT (swtpm_ioctls(3))
		return fmt.Errorf("swtpm: %w", err)
	}
	if _, err := io.ReadFull(conn, result); err != nil {
		return fmt.Errorf("swtpm: %w", err)
	}
	answer, hangUp, err := Dial(s.Address())
	if err != nil {
		return err
	}
	defer hangUp()
	response, err := answer([]byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0}) // TPM2_Startup(CLEAR)
	if err != nil {
		return fmt.Errorf("swtpm: %w", err)
	}
	if code := binary.BigEndian.Uint32(result) | binary.BigEndian.Uint32(response[6:]); code != 0 {
		return fmt.Errorf("swtpm did not start again: %#x", code)
	}
	return nil
}

// Pause stops the TPM as it is: it takes connections and commands and does not answer.
func (s *SWTPM) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume lets a paused TPM go on.
func (s *SWTPM) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *SWTPM) signal(sig os.Signal) error {
	if err := s.process.Signal(sig); err != nil {
		return fmt.Errorf("swtpm: %w", err)
	}
	return nil
}

// Stop ends the TPM as a power cut would, and waits for its end.
func (s *SWTPM) Stop() error {
	s.stop()
	<-s.exited
	if s.remove {
		if err := os.RemoveAll(s.dir); err != nil {
			return err
		}
	}
	return nil
}

// TB is what of testing.TB is needed.
type TB interface {
	Helper()
	Fatal(...any)
	Cleanup(func())
}

// Run starts a TPM for the length of a test.
func Run(t TB, opts Options) *SWTPM {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	s, err := Start(ctx, opts)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer cancel()
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	})
	return s
}
