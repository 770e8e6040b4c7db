package localiot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"strings"
	"time"
)

// maxShadow bounds the state of a shadow in bytes of JSON.
const maxShadow = 8 << 10

// shadow is a shadow document (AWS IoT Developer Guide, "Device Shadow service
// documents"). The version outlives a deletion.
type shadow struct {
	State     sections `json:"state"`
	Metadata  sections `json:"metadata"`
	Version   int      `json:"version"`
	Timestamp int64    `json:"timestamp"` // seconds since 1970
	Deleted   bool     `json:"deleted,omitempty"`
}

type sections struct {
	Desired  map[string]any `json:"desired,omitempty"`
	Reported map[string]any `json:"reported,omitempty"`
}

// shadowError is an answer on a rejected topic.
type shadowError struct {
	code    int
	message string
}

func (e *shadowError) Error() string { return fmt.Sprintf("%d %s", e.code, e.message) }

// shadowKey is the place of a shadow in the registry; name is "" for the classic one.
func shadowKey(thing, name string) string { return thing + "/" + name }

// Shadow is the state of a thing's shadow, {"desired": …, "reported": …} as
// JSON, or nil if there is none. name is "" for the classic shadow.
func (s *Server) Shadow(thing, name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	doc := s.registry.Shadows[shadowKey(thing, name)]
	if doc == nil || doc.Deleted {
		return nil
	}
	return encode(doc.State)
}

// WaitShadow waits until until says yes of the state of a shadow, as
// [Server.Shadow] gives it.
func (s *Server) WaitShadow(ctx context.Context, thing, name string, until func(state []byte) bool) error {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		state := s.Shadow(thing, name)
		if until(state) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for shadow %s of %s, now %s: %w", name, thing, state, context.Cause(ctx))
		}
	}
}

// UpdateShadow is an update by the cloud's side, in the shadow's own JSON, such
// as {"state":{"desired":{"check":"1"}}}. Subscribers see it like any other message.
func (s *Server) UpdateShadow(thing, name string, update []byte) error {
	if !validName(thing) || name != "" && !validShadow(name) {
		return fmt.Errorf("update shadow: %q of %q is no shadow", name, thing)
	}
	topic, operation := "$aws/things/"+thing+"/shadow/update/", "update"
	if name != "" {
		operation = "name/" + name + "/update"
		topic = "$aws/things/" + thing + "/shadow/" + operation + "/"
	}
	var rejected any
	s.answerShadow(thing, operation, update, func(suffix string, payload any) {
		if suffix == "rejected" {
			rejected = payload
		}
		s.cloud.send(nil, topic+suffix, payload)
	})
	if rejected != nil {
		return fmt.Errorf("update shadow: rejected: %s", encode(rejected))
	}
	return nil
}

func validShadow(name string) bool { return validName(name) && len(name) <= 64 }

// answerShadow carries out "update", "name/N/get" and their like.
func (s *Server) answerShadow(thing, operation string, payload []byte, send reply) {
	name := ""
	if named, ok := strings.CutPrefix(operation, "name/"); ok {
		if name, operation, ok = strings.Cut(named, "/"); !ok || !validShadow(name) {
			return
		}
	}
	var carryOut func(*shadow, *shadowRequest, int64, func(string, map[string]any)) (*shadow, error)
	switch operation {
	case "get":
		carryOut = getShadow
	case "update":
		carryOut = updateShadow
	case "delete":
		carryOut = deleteShadow
	default:
		return
	}
	now := time.Now().Unix()
	request, err := parseShadowRequest(payload)
	type message struct {
		suffix  string
		payload map[string]any
	}
	var messages []message
	add := func(suffix string, payload map[string]any) {
		payload["timestamp"] = now
		if request.ClientToken != "" {
			payload["clientToken"] = request.ClientToken
		}
		messages = append(messages, message{suffix, payload})
	}
	if err == nil && s.strikes(func(f Faults) bool { return f.Throttle }) {
		err = &shadowError{429, "Too many requests"}
	}
	if err == nil {
		err = s.changeShadow(shadowKey(thing, name), request.Version != nil, func(doc *shadow) (*shadow, error) {
			return carryOut(doc, request, now, add)
		})
	}
	var rejected *shadowError
	if errors.As(err, &rejected) {
		messages = nil
		add("rejected", map[string]any{"code": rejected.code, "message": rejected.message})
	} else if err != nil {
		s.log.Error("shadow not kept", "thing", thing, "error", err)
		messages = nil
		add("rejected", map[string]any{"code": 500, "message": "internal service failure"})
	}
	for _, m := range messages {
		send(m.suffix, m.payload)
	}
}

func (s *Server) changeShadow(key string, expectsVersion bool, change func(*shadow) (*shadow, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.registry.Shadows[key]
	if before == nil {
		before = &shadow{Deleted: true}
	}
	if expectsVersion && s.strikesLocked(func(f Faults) bool { return f.VersionMismatch }) {
		touched := *before
		touched.Version++
		s.registry.Shadows[key], before = &touched, &touched
	}
	after, err := change(before)
	if err != nil || after == before {
		return err
	}
	s.registry.Shadows[key] = after
	s.wake()
	return s.registry.save(s.dir)
}

type shadowRequest struct {
	State       map[string]any `json:"state"`
	Version     *int           `json:"version"`
	ClientToken string         `json:"clientToken"`
}

// parseShadowRequest never returns nil for a request.
func parseShadowRequest(payload []byte) (*shadowRequest, error) {
	request := new(shadowRequest)
	if len(payload) == 0 {
		return request, nil
	}
	if err := decode(payload, request); err != nil {
		return &shadowRequest{}, &shadowError{400, "Invalid JSON"}
	}
	if len(request.ClientToken) > 64 {
		return &shadowRequest{}, &shadowError{400, "Invalid client token"}
	}
	return request, nil
}

func getShadow(doc *shadow, _ *shadowRequest, _ int64, add func(string, map[string]any)) (*shadow, error) {
	if doc.Deleted {
		return nil, &shadowError{404, "No shadow exists"}
	}
	state := map[string]any{}
	if len(doc.State.Desired) > 0 {
		state["desired"] = doc.State.Desired
	}
	if len(doc.State.Reported) > 0 {
		state["reported"] = doc.State.Reported
	}
	if delta := difference(doc.State.Desired, doc.State.Reported); len(delta) > 0 {
		state["delta"] = delta
	}
	add("accepted", map[string]any{"state": state, "metadata": doc.Metadata, "version": doc.Version})
	return doc, nil
}

func deleteShadow(doc *shadow, request *shadowRequest, now int64, add func(string, map[string]any)) (*shadow, error) {
	if doc.Deleted {
		return nil, &shadowError{404, "No shadow exists"}
	}
	if request.Version != nil && *request.Version != doc.Version {
		return nil, &shadowError{409, "Version conflict"}
	}
	add("accepted", map[string]any{"version": doc.Version})
	return &shadow{Version: doc.Version, Timestamp: now, Deleted: true}, nil
}

func updateShadow(doc *shadow, request *shadowRequest, now int64, add func(string, map[string]any)) (*shadow, error) {
	if request.State == nil {
		return nil, &shadowError{400, "Missing required node: state"}
	}
	if request.Version != nil && *request.Version != doc.Version {
		return nil, &shadowError{409, "Version conflict"}
	}
	next := &shadow{State: doc.State, Metadata: doc.Metadata, Version: doc.Version + 1, Timestamp: now}
	metadata := map[string]any{}
	for section, value := range request.State {
		var state, meta *map[string]any
		switch section {
		case "desired":
			state, meta = &next.State.Desired, &next.Metadata.Desired
		case "reported":
			state, meta = &next.State.Reported, &next.Metadata.Reported
		default:
			return nil, &shadowError{400, "State contains an invalid node: " + section}
		}
		switch patch := value.(type) {
		case nil:
			*state, *meta = nil, nil
		case map[string]any:
			*state = merge(*state, patch)
			stamps := timestamps(patch, now).(map[string]any)
			*meta = merge(*meta, stamps)
			metadata[section] = stamps
		default:
			return nil, &shadowError{400, "State node must be an object: " + section}
		}
	}
	if len(encode(next.State)) > maxShadow {
		return nil, &shadowError{413, "The payload exceeds the maximum size allowed"}
	}
	add("accepted", map[string]any{"state": request.State, "metadata": metadata, "version": next.Version})
	if delta := difference(next.State.Desired, next.State.Reported); len(delta) > 0 {
		add("delta", map[string]any{"state": delta, "metadata": timestamps(delta, now), "version": next.Version})
	}
	add("documents", map[string]any{"previous": doc.whole(), "current": next.whole()})
	return next, nil
}

func (doc *shadow) whole() map[string]any {
	return map[string]any{"state": doc.State, "metadata": doc.Metadata, "version": doc.Version}
}

// merge is into with patch laid over it: objects merge, null deletes, anything
// else replaces. Neither is changed.
func merge(into, patch map[string]any) map[string]any {
	merged := maps.Clone(into)
	if merged == nil {
		merged = make(map[string]any)
	}
	for name, value := range patch {
		switch value := value.(type) {
		case nil:
			delete(merged, name)
		case map[string]any:
			old, _ := merged[name].(map[string]any)
			merged[name] = merge(old, value)
		default:
			merged[name] = value
		}
	}
	return merged
}

// timestamps is a tree of the shape of value with the time for leaves; null
// stays, so that merging it deletes.
func timestamps(value any, now int64) any {
	switch value := value.(type) {
	case nil:
		return nil
	case map[string]any:
		tree := make(map[string]any, len(value))
		for name, v := range value {
			tree[name] = timestamps(v, now)
		}
		return tree
	case []any:
		list := make([]any, len(value))
		for i, v := range value {
			list[i] = timestamps(v, now)
		}
		return list
	}
	return map[string]any{"timestamp": now}
}

// difference is what of desired is not so in reported.
func difference(desired, reported map[string]any) map[string]any {
	delta := make(map[string]any)
	for name, want := range desired {
		is, reportedToo := reported[name]
		wantObject, ok1 := want.(map[string]any)
		isObject, ok2 := is.(map[string]any)
		switch {
		case ok1 && ok2:
			if inner := difference(wantObject, isObject); len(inner) > 0 {
				delta[name] = inner
			}
		case !reportedToo || !reflect.DeepEqual(want, is):
			delta[name] = want
		}
	}
	return delta
}

// decode reads one JSON value, with numbers kept as they are written.
func decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	return nil
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // made of what JSON was decoded to
	}
	return b
}
