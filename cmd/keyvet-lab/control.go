package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/rpc"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

// controlTime bounds one command to a running lab, answerTime what a device takes
// for a challenge.
const (
	controlTime = 30 * time.Second
	answerTime  = 25 * time.Second
)

// maxSocketPath is sun_path of unix(7), less the final NUL.
const maxSocketPath = 107

// controlPath is in a folder that nobody else may enter.
func controlPath(dir string) string { return filepath.Join(cloudDir(dir), "control") }

func cloudDir(dir string) string { return filepath.Join(dir, "cloud") }

// Lab is what the other commands ask of a running "up", over net/rpc on a Unix
// socket that nobody else may open.
type Lab struct{ cloud *localiot.Server }

// None is no argument, or no answer.
type None struct{}

// Thing is a thing of the registry.
type Thing struct {
	Name         string                 `json:"name"`
	Certificates []localiot.Certificate `json:"certificates"`
}

// Things are all things.
func (l *Lab) Things(_ None, things *[]Thing) error {
	for _, name := range l.cloud.Things() {
		*things = append(*things, Thing{name, l.cloud.Certificates(name)})
	}
	return nil
}

// CreateJob queues a job. One without an id is called after the time.
func (l *Lab) CreateJob(j localiot.Job, id *string) error {
	if *id = j.ID; *id == "" {
		*id = "job-" + time.Now().UTC().Format("20060102-150405")
	}
	for n, first := 2, *id; j.ID == "" && l.hasJob(*id); n++ {
		*id = fmt.Sprintf("%s-%d", first, n)
	}
	j.ID = *id
	return l.cloud.CreateJob(j)
}

func (l *Lab) hasJob(id string) bool {
	return slices.ContainsFunc(l.cloud.Executions(""), func(e localiot.Execution) bool { return e.Job == id })
}

// Cancel says which job to cancel.
type Cancel struct {
	ID    string
	Force bool
}

func (l *Lab) CancelJob(c Cancel, _ *None) error { return l.cloud.CancelJob(c.ID, c.Force) }

// Executions are those of all jobs.
func (l *Lab) Executions(_ None, all *[]localiot.Execution) error {
	*all = l.cloud.Executions("")
	return nil
}

func (l *Lab) SetFaults(f localiot.Faults, _ *None) error {
	l.cloud.SetFaults(f)
	return nil
}

func (l *Lab) Faults(_ None, f *localiot.Faults) error {
	*f = l.cloud.Faults()
	return nil
}

// Shadow names a shadow and, if it is not empty, an update to do first.
type Shadow struct {
	Thing, Name string
	Update      []byte
}

// Shadow is the state of a shadow, or empty.
func (l *Lab) Shadow(s Shadow, state *[]byte) error {
	if len(s.Update) > 0 {
		if err := l.cloud.UpdateShadow(s.Thing, s.Name, s.Update); err != nil {
			return err
		}
	}
	*state = l.cloud.Shadow(s.Thing, s.Name)
	return nil
}

// Check asks a thing for a check, by a token of its own.
func (l *Lab) Check(thing string, token *string) error {
	*token = rand.Text()
	update, err := json.Marshal(map[string]any{"state": map[string]any{"desired": map[string]any{"check": *token}}})
	if err != nil {
		return err
	}
	return l.cloud.UpdateShadow(thing, "keyvet", update)
}

// Report is the newest report of a thing, byte for byte as it came.
func (l *Lab) Report(thing string, report *[]byte) error {
	var newest time.Time
	for _, m := range l.cloud.Messages("keyvet/" + thing + "/report") {
		r := new(device.Report)
		if err := json.Unmarshal(m.Payload, r); err != nil {
			return err
		}
		if !r.Time.Before(newest) { // one that waited for a connection comes late
			newest, *report = r.Time, m.Payload
		}
	}
	if len(*report) == 0 {
		return fmt.Errorf("%s has sent no report; `keyvet run` sends one", thing)
	}
	return nil
}

// Challenge is one to the TPM of a thing, as keyvet-fleet prints it.
type Challenge struct {
	Thing string
	Text  []byte
}

// Challenge sends a challenge and waits for the answer.
func (l *Lab) Challenge(c Challenge, answer *[]byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	topic := "keyvet/" + c.Thing + "/challenge"
	if l.cloud.WaitSubscriber(ctx, topic) != nil {
		return fmt.Errorf("no keyvet of %s listens for challenges; start `keyvet run`", c.Thing)
	}
	ended, end := context.WithCancel(ctx)
	end()
	for { // answers that nobody took
		if _, err := l.cloud.WaitMessage(ended, topic+"/answer"); err != nil {
			break
		}
	}
	l.cloud.Say(topic, c.Text)
	m, err := l.cloud.WaitMessage(ctx, topic+"/answer")
	if err != nil {
		return fmt.Errorf("%s has not answered in time; its log says why", c.Thing)
	}
	*answer = m.Payload
	return nil
}

// control listens in dir for the other commands, until it is closed.
func control(dir string, cloud *localiot.Server) (net.Listener, error) {
	path := controlPath(dir)
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%s: too long for a socket, which has at most %d bytes: give a shorter -dir, or set TMPDIR", path, maxSocketPath)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	server := rpc.NewServer()
	if err := server.Register(&Lab{cloud}); err != nil {
		l.Close()
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(controlTime))
			go server.ServeConn(conn)
		}
	}()
	return l, nil
}

// ask calls a method of the lab that is up in dir.
func ask(dir, method string, args, answer any) error {
	if dir == "" {
		return errors.New("no lab is named: give -dir DIR or set KEYVET_LAB (`keyvet-lab up -dir DIR` starts one)")
	}
	conn, err := net.DialTimeout("unix", controlPath(dir), controlTime)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s: permission denied: run this as the user who runs the lab", controlPath(dir))
	}
	if err != nil {
		return fmt.Errorf("no lab is up in %s: start one with `keyvet-lab up -dir %[1]s` (%w)", dir, err)
	}
	_ = conn.SetDeadline(time.Now().Add(controlTime))
	client := rpc.NewClient(conn)
	defer client.Close()
	err = client.Call("Lab."+method, args, answer)
	if refused, ok := errors.AsType[rpc.ServerError](err); ok {
		return errors.New(refused.Error())
	}
	return err
}
