package tpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// command sends a command that go-tpm does not have, by the empty password of
// one handle.
func command(t *testing.T, c *TPM, code, handle uint32, parameters ...byte) {
	t.Helper()
	b := binary.BigEndian.AppendUint32([]byte{0x80, 0x02}, uint32(10+4+4+9+len(parameters)))
	b = binary.BigEndian.AppendUint32(b, code)
	b = binary.BigEndian.AppendUint32(b, handle)
	b = append(b, 0, 0, 0, 9, 0x40, 0, 0, 0x09, 0, 0, 0, 0, 0) // TPM_RS_PW
	response, err := c.Send(append(b, parameters...))
	if err != nil {
		t.Fatal(err)
	}
	if rc := binary.BigEndian.Uint32(response[6:]); rc != 0 {
		t.Fatalf("command %#x: %v", code, tpm2.TPMRC(rc))
	}
}

// switchOff disables a hierarchy until the TPM is reset, as the platform's firmware may.
func switchOff(t *testing.T, c *TPM, hierarchy uint32) {
	t.Helper()
	const hierarchyControl = 0x121
	command(t, c, hierarchyControl, uint32(tpm2.TPMRHPlatform), append(binary.BigEndian.AppendUint32(nil, hierarchy), 0)...)
}

func TestDisabledHierarchies(t *testing.T) { byEveryWay(t, testDisabledHierarchies) }

func testDisabledHierarchies(t *testing.T, by *way) {
	for hierarchy, want := range map[uint32][]string{
		uint32(tpm2.TPMRHEndorsement): {
			"tpm-ek-rsa2048 EK RSA-2048 tpm:nv:0x01c00002 1",
			"tpm-ek-p384 EK ECDSA-P384 tpm:nv:0x01c00016 1",
			"tpm-srk SRK ECDSA-P256 tpm:template:SRK-P256 0",
			"tpm-srk-rsa2048 SRK RSA-2048 tpm:template:SRK-RSA2048 0",
			"gap tpm: endorsement hierarchy minor=false", "gap tpm:0x81010001 minor=false", "gap tpm:0x81010016 minor=false",
			"gap tpm-ek-rsa2048 minor=true", "gap tpm-ek-p256 minor=false", "gap tpm-ek-p384 minor=true", "gap tpm-ak minor=false",
		},
		uint32(tpm2.TPMRHOwner): {
			"tpm-ek-rsa2048 EK RSA-2048 tpm:template:L-1 1",
			"tpm-ek-p256 EK ECDSA-P256 tpm:template:L-2 0",
			"tpm-ek-p384 EK ECDSA-P384 tpm:template:H-3 1",
			"tpm-ak AK ECDSA-P256 tpm:template:AK-P256 0",
			"gap tpm: owner hierarchy minor=false", "gap tpm:0x81010001 minor=false", "gap tpm:0x81010016 minor=false", "gap tpm-srk minor=false", "gap tpm-srk-rsa2048 minor=false",
		},
		0x4000000d: { // TPM_RH_PLATFORM_NV
			"tpm-ek-rsa2048 EK RSA-2048 tpm:0x81010001 0",
			"tpm-ek-p256 EK ECDSA-P256 tpm:template:L-2 0",
			"tpm-ek-p384 EK ECDSA-P384 tpm:0x81010016 0",
			"tpm-srk SRK ECDSA-P256 tpm:template:SRK-P256 0",
			"tpm-srk-rsa2048 SRK RSA-2048 tpm:template:SRK-RSA2048 0",
			"tpm-ak AK ECDSA-P256 tpm:template:AK-P256 0",
			"gap tpm: NV of the platform minor=false",
			"gap tpm:nv:0x01c00002 minor=false", "gap tpm:nv:0x01c00016 minor=false", "gap tpm:nv:0x01c08000 minor=true",
		},
	} {
		t.Run(strings.Join(want[len(want)-1:], ""), func(t *testing.T) {
			c := connect(t, by.run(t, tpmtest.Options{}).Address())
			switchOff(t, c, hierarchy)
			_, keys, gaps := c.Inventory()
			expect(t, brief(keys, gaps), want...)
			for _, g := range gaps {
				if !strings.Contains(g.Why, "disabled") || !strings.Contains(g.Why, "until the TPM is reset") {
					t.Errorf("%+v", g)
				}
			}
		})
	}
}

// The platform's hierarchy is for firmware, which disables it before it hands
// over: nothing is missing then.
func TestDisabledPlatformHierarchy(t *testing.T) { byEveryWay(t, testDisabledPlatformHierarchy) }

func testDisabledPlatformHierarchy(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{}).Address())
	switchOff(t, c, uint32(tpm2.TPMRHPlatform))
	_, keys, gaps := c.Inventory()
	if len(keys) != 6 || len(gaps) != 0 {
		t.Errorf("%v", brief(keys, gaps))
	}
}

// A key that the firmware keeps there, and then hides with its hierarchy, is no
// reason to shut the gate at each boot; one that is hidden in another way is.
func TestHiddenPlatformKey(t *testing.T) { byEveryWay(t, testHiddenPlatformKey) }

func testHiddenPlatformKey(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{})
	c := connect(t, emulator.Address())
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHPlatform, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(c)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.EvictControl{
		Auth: tpm2.TPMRHPlatform, ObjectHandle: tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}, PersistentHandle: 0x81800001,
	}.Execute(c)
	if err == nil {
		_, err = tpm2.FlushContext{FlushHandle: rsp.ObjectHandle}.Execute(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, keys, gaps := c.Inventory()
	if got := brief(keys, gaps); len(gaps) != 0 || !slices.Contains(got, "tpm-0x81800001 PERSISTENT ECDSA-P256 tpm:0x81800001 0") {
		t.Errorf("enabled: %v", got)
	}
	c.Close()
	hidden := by.proxy(t, emulator, func(command, response []byte) []byte {
		if bytes.HasSuffix(command, []byte{0, 0, 1, 0x73, 0x81, 0x80, 0, 1}) { // TPM2_ReadPublic
			return frame(0x8001, 0x18b) // TPM_RC_HANDLE, handle 1
		}
		return response
	})
	c = connect(t, hidden.Address())
	_, keys, gaps = c.Inventory()
	if got := brief(keys, gaps); !slices.Contains(got, "gap tpm:0x81800001 minor=false") {
		t.Errorf("hidden, though enabled: %v", got)
	}
	c.Close()
	hidden.Close()
	c = connect(t, emulator.Address())
	switchOff(t, c, uint32(tpm2.TPMRHPlatform))
	_, keys, gaps = c.Inventory()
	if got := brief(keys, gaps); len(gaps) != 1 || got[len(got)-1] != "gap tpm:0x81800001 minor=true" || !strings.Contains(gaps[0].Why, "the firmware has disabled") {
		t.Errorf("disabled: %v", got)
	}
}

// The TPM says who may clear it: nobody once that is disabled, else those who have
// the lockout password, or everybody if there is none.
func TestClearing(t *testing.T) { byEveryWay(t, testClearing) }

func testClearing(t *testing.T, by *way) {
	const changeAuth, clearControl = 0x129, 0x127
	c := connect(t, by.run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	is := func(want device.TPMClearing) {
		t.Helper()
		if info, _, _ := c.Inventory(); info.Clearing != want {
			t.Errorf("%q, want %q", info.Clearing, want)
		}
	}
	is(device.ClearingOpen)
	command(t, c, clearControl, uint32(tpm2.TPMRHLockout), 1)
	is(device.ClearingGuarded)
	command(t, c, clearControl, uint32(tpm2.TPMRHPlatform), 0)
	is(device.ClearingOpen)
	command(t, c, changeAuth, uint32(tpm2.TPMRHLockout), 0, 2, 'p', 'w')
	is(device.ClearingGuarded)
}

// In lockout all keys are read and quotes made: none of them counts towards it.
func TestLockout(t *testing.T) { byEveryWay(t, testLockout) }

func testLockout(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	const dictionaryAttackParameters = 0x13a
	// No tries at all, one forgiven in 600 s.
	command(t, c, dictionaryAttackParameters, uint32(tpm2.TPMRHLockout), 0, 0, 0, 0, 0, 0, 2, 0x58, 0, 0, 0, 1)
	info, keys, gaps := c.Inventory()
	if l := info.Lockout; l == nil || !l.Locked || l.Recovery != 600 {
		t.Errorf("%+v", l)
	}
	if len(keys) != 6 {
		t.Errorf("%v", brief(keys, gaps))
	}
	if len(gaps) != 1 || gaps[0].What != "tpm: lockout" || !gaps[0].Minor || !strings.Contains(gaps[0].Why, "after 10m0s") {
		t.Errorf("%+v", gaps)
	}
	if _, err := c.Quote([32]byte{}); err != nil {
		t.Error(err)
	}
}

// Neither inventory nor quote needs a session, so that other programs' do not matter.
func TestSessionsExhausted(t *testing.T) { byEveryWay(t, testSessionsExhausted) }

func testSessionsExhausted(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	var full error
	for i := 0; full == nil; i++ {
		if i > 100 {
			t.Fatal("the TPM takes any number of sessions")
		}
		_, _, full = tpm2.HMACSession(c, tpm2.TPMAlgSHA256, 16)
	}
	if err := explain(full); !strings.Contains(err.Error(), "other programs' sessions fill the TPM") {
		t.Errorf("%v", err)
	}
	before := allHandles(t, c)
	_, keys, gaps := c.Inventory()
	if len(keys) != 6 || len(gaps) != 0 {
		t.Errorf("%v", brief(keys, gaps))
	}
	if _, err := c.Quote([32]byte{}); err != nil {
		t.Error(err)
	}
	if after := allHandles(t, c); !slices.Equal(before, after) {
		t.Errorf("handles before: %x, after: %x", before, after)
	}
}

func TestExplain(t *testing.T) {
	for code, want := range map[tpm2.TPMRC]string{
		tpm2.TPMRCHierarchy | 0x100: "is disabled",
		tpm2.TPMRCLockout:           "tpm2_dictionarylockout", tpm2.TPMRCObjectMemory: "/dev/tpmrm0", tpm2.TPMRCObjectHandles: "/dev/tpmrm0",
		tpm2.TPMRCSessionMemory: "/dev/tpmrm0", tpm2.TPMRCSessionHandles: "tpm2_flushcontext", tpm2.TPMRCMemory: "/dev/tpmrm0",
		tpm2.TPMRCInitialize: "was not started", tpm2.TPMRCUpgrade: "finish it", tpm2.TPMRCReboot: "restart the device",
		tpm2.TPMRCYielded: "stayed busy", tpm2.TPMRCTesting: "stayed busy", tpm2.TPMRCNVRate: "stayed busy", tpm2.TPMRCRetry: "stayed busy",
		tpm2.TPMRCHandle | 0x100: "is disabled", tpm2.TPMRCFailure: "failure mode", 0x0a: "a TPM 1.2", 0x1e: "a TPM 1.2",
	} {
		err := explain(code)
		if !strings.Contains(err.Error(), want) || !errors.Is(err, code) && !errors.Is(err, code&^0xf00) {
			t.Errorf("%#x: %v, want %q", uint32(code), err, want)
		}
	}
	for _, err := range []error{tpm2.TPMRCValue, errors.New("other")} {
		if explain(err) != err {
			t.Errorf("%v became %v", err, explain(err))
		}
	}
	if err := explain(tpm2.TPMRCCurve | 0x2c0); errors.Is(err, errUnsupported) {
		t.Errorf("of any command: %v", err)
	}
	if err := explainCreation(tpm2.TPMRCCurve | 0x2c0); !errors.Is(err, errUnsupported) || isMinor(err) {
		t.Errorf("of the creation of a key: %v", err)
	}
}

// A TPM that says "not now" is asked again.
func TestRetry(t *testing.T) { byEveryWay(t, testRetry) }

func testRetry(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	for _, code := range []uint32{0x908, 0x90a, 0x920, 0x922} {
		var asked atomic.Int32
		proxy := by.proxy(t, emulator, func(_, response []byte) []byte {
			if asked.Add(1) <= 3 {
				return frame(0x8001, code)
			}
			return response
		})
		c, err := Open(proxy.Address(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if info, err := c.Info(); err != nil || info.State != device.TPMOK {
			t.Errorf("%#x: %+v, %v", code, info, err)
		}
		c.Close()
		proxy.Close()
	}
	always := by.proxy(t, machine{}, func(_, _ []byte) []byte { return frame(0x8001, 0x922) })
	c, err := Open(always.Address(), Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Info(); err == nil || !strings.Contains(err.Error(), "the TPM stayed busy") && !errors.Is(err, ErrTimeout) {
		t.Errorf("a TPM that never starts: %v", err)
	}
}

// A command that was canceled is sent once more, and not for ever.
func TestCanceled(t *testing.T) { byEveryWay(t, testCanceled) }

func testCanceled(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	for _, times := range []int{1, 2} { // that each command is canceled
		var mu sync.Mutex
		var last []byte
		asked, most := 0, 0
		proxy := by.proxy(t, emulator, func(command, response []byte) []byte {
			mu.Lock()
			defer mu.Unlock()
			if !bytes.Equal(last, command) {
				last, asked = bytes.Clone(command), 0
			}
			asked++
			if most = max(most, asked); asked <= times {
				return frame(0x8001, 0x909)
			}
			asked = 0
			return response
		})
		c, err := Open(proxy.Address(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		info, err := c.Info()
		if canceled := times > 1; (err != nil) != canceled || most != 2 || canceled && !errors.Is(err, tpm2.TPMRCCanceled) {
			t.Errorf("%d times: %+v, %v, sent %d times", times, info, err, most)
		}
		c.Close()
		proxy.Close()
	}
}

func TestDegraded(t *testing.T) { byEveryWay(t, testDegraded) }

func testDegraded(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{FailureMode: true})
	c := connect(t, emulator.Address())
	info, keys, gaps := c.Inventory()
	if want := (device.TPM{Family: "2.0", State: device.TPMDegraded}); info != want {
		t.Errorf("%+v, want %+v", info, want)
	}
	if len(keys) != 0 || len(gaps) != 1 || gaps[0].Minor || !strings.Contains(gaps[0].Why, "failure mode") {
		t.Errorf("%v %v", keys, gaps)
	}
}

// A TPM without TPM2_ReadClock is decided by the result of its self-test.
func TestWithoutReadClock(t *testing.T) {
	const readClock, getTestResult, unknown = 0x181, 0x17c, 0x143
	for _, c := range []struct {
		failed bool
		refuse tpmtest.Refuse
		want   device.TPMState
	}{
		{false, tpmtest.RefuseCommand(readClock, unknown), device.TPMOK},
		{true, tpmtest.RefuseCommand(readClock, unknown), device.TPMDegraded},
		{false, func(command []byte) []byte {
			for _, code := range []uint32{readClock, getTestResult} {
				if response := tpmtest.RefuseCommand(code, unknown)(command); response != nil {
					return response
				}
			}
			return nil
		}, device.TPMAbsent}, // undecided, and not in failure mode
	} {
		emulator := tpmtest.Run(t, tpmtest.Options{FailureMode: c.failed})
		proxy := tpmtest.RunInterposer(t, emulator.Address(), c.refuse, func(_, response []byte) []byte { return response })
		if info, err := connect(t, proxy.Address()).Info(); info.State != c.want || (err != nil) != (c.want == device.TPMAbsent) {
			t.Errorf("failed %v: %s, %v, want %s", c.failed, info.State, err, c.want)
		}
	}
}
