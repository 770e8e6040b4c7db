package localiot

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Faults are ways to misbehave. All may be on at once.
type Faults struct {
	DropAccepted      bool // carry requests out but never answer that they were accepted
	Throttle          bool // answer requests that there are too many
	VersionMismatch   bool // somebody else changes the job or the shadow just before an update
	RefuseConnects    bool // close each connection after its CONNECT, without a CONNACK
	Connack5          bool // answer CONNECT with "not authorized", and close
	Connack7          bool // the same with a code that MQTT 3.1.1 does not know
	NoConnack         bool // take the CONNECT and be silent
	NoPingresp        bool // never answer a PINGREQ
	Partition         bool // take TCP connections, but no byte goes either way, until it is over
	CreateSilent      bool // never answer, nor carry out, a request for a certificate
	CreateRejected    bool // reject every request for a certificate
	NeverActivated    bool // a certificate made by a device's request stays PENDING_ACTIVATION
	DeactivatedAtUse  bool // a certificate made by a device's request is deactivated as it first connects
	CommitSilent      bool // never answer, nor carry out, the commit of the issuer "topics"
	ProvisionRejected bool // reject every provisioning by template

	Slow time.Duration // before each packet to a device

	// Times, if it is not 0, clears all faults once they have struck so often.
	Times int
}

// faultNames are the faults that can be switched by name, and how to describe them.
var faultNames = []struct {
	name, text string
	of         func(*Faults) *bool
}{
	{"drop-accepted", "carry requests out but never answer that they were accepted", func(f *Faults) *bool { return &f.DropAccepted }},
	{"throttle", "answer requests that there are too many", func(f *Faults) *bool { return &f.Throttle }},
	{"version-mismatch", "somebody else changes the job or the shadow just before an update", func(f *Faults) *bool { return &f.VersionMismatch }},
	{"refuse-connects", "close each connection after its CONNECT, without a CONNACK", func(f *Faults) *bool { return &f.RefuseConnects }},
	{"connack-5", "answer CONNECT with code 5, not authorized, and close", func(f *Faults) *bool { return &f.Connack5 }},
	{"connack-7", "answer CONNECT with code 7, which MQTT 3.1.1 does not know, and close", func(f *Faults) *bool { return &f.Connack7 }},
	{"no-connack", "take the CONNECT and be silent", func(f *Faults) *bool { return &f.NoConnack }},
	{"no-pingresp", "never answer a PINGREQ", func(f *Faults) *bool { return &f.NoPingresp }},
	{"partition", "take TCP connections, but no byte goes either way until it is over", func(f *Faults) *bool { return &f.Partition }},
	{"create-silent", "never answer, nor carry out, a request for a certificate", func(f *Faults) *bool { return &f.CreateSilent }},
	{"create-rejected", "reject every request for a certificate", func(f *Faults) *bool { return &f.CreateRejected }},
	{"never-activated", "a certificate made by a device's request stays PENDING_ACTIVATION", func(f *Faults) *bool { return &f.NeverActivated }},
	{"deactivated-at-use", "a certificate made by a device's request is deactivated as it first connects", func(f *Faults) *bool { return &f.DeactivatedAtUse }},
	{"commit-silent", "never answer, nor carry out, the commit of the issuer topics", func(f *Faults) *bool { return &f.CommitSilent }},
	{"provision-rejected", "reject every provisioning by template", func(f *Faults) *bool { return &f.ProvisionRejected }},
}

// maxSlow bounds what Set takes for "slow".
const maxSlow = time.Hour

// Set switches one fault on by its name, or "slow=DURATION".
func (f *Faults) Set(fault string) error {
	if duration, ok := strings.CutPrefix(fault, "slow="); ok {
		d, err := time.ParseDuration(duration)
		if err == nil && (d <= 0 || d > maxSlow) {
			err = errors.New("out of range")
		}
		if err != nil {
			return fmt.Errorf("fault %q: %w", fault, err)
		}
		f.Slow = d
		return nil
	}
	for _, known := range faultNames {
		if known.name == fault {
			*known.of(f) = true
			return nil
		}
	}
	return fmt.Errorf("no fault is called %q", fault)
}

// Names are the faults that are on, as Set takes them.
func (f Faults) Names() []string {
	var on []string
	for _, known := range faultNames {
		if *known.of(&f) {
			on = append(on, known.name)
		}
	}
	if f.Slow > 0 {
		on = append(on, "slow="+f.Slow.String())
	}
	return on
}

// DescribeFaults is one line for each fault: its name and what it does.
func DescribeFaults() string {
	var text strings.Builder
	for _, known := range faultNames {
		fmt.Fprintf(&text, "%-18s  %s\n", known.name, known.text)
	}
	fmt.Fprintf(&text, "%-18s  %s\n", "slow=DURATION", "wait before each packet to a device")
	return text.String()
}

// SetFaults replaces the faults; connections that stand are left standing.
func (s *Server) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setFaults(f)
}

// Faults are those that are on.
func (s *Server) Faults() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}

// setFaults needs mu.
func (s *Server) setFaults(f Faults) {
	s.faults = f
	switch {
	case f.Partition && s.healed == nil:
		s.healed = make(chan struct{})
	case !f.Partition && s.healed != nil:
		close(s.healed)
		s.healed = nil
	}
}

// strikes reports whether the fault that of picks is on, and counts that it struck.
func (s *Server) strikes(of func(Faults) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.strikesLocked(of)
}

func (s *Server) strikesLocked(of func(Faults) bool) bool {
	if !of(s.faults) {
		return false
	}
	if s.faults.Times > 0 {
		if s.faults.Times--; s.faults.Times == 0 {
			s.setFaults(Faults{})
		}
	}
	return true
}
