package mqtt

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
)

// inbox is who waits for the messages of a session.
type inbox struct {
	kept        *filters      // what the broker keeps for a persistent session, else nil
	subscribing chan struct{} // one SUBSCRIBE at a time; holds one token
	heard       atomic.Bool   // a reply to a question

	mu       sync.Mutex
	handlers map[string][]Handler   // by filter; a nil list is a filter of Ask
	attached chan struct{}          // closed when another filter has its handlers
	asked    map[string][]*question // by topic of the reply
}

func newInbox() *inbox {
	return &inbox{
		subscribing: make(chan struct{}, 1), handlers: make(map[string][]Handler),
		attached: make(chan struct{}), asked: make(map[string][]*question),
	}
}

// attach adds a handler of a filter, before the SUBACK, which messages may
// overtake; h may be nil. It reports whether the broker sends these messages
// already.
func (in *inbox) attach(filter string, h Handler) (comes bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	handlers, known := in.handlers[filter]
	kept := in.kept.has(filter)
	if h == nil {
		for wider := range in.handlers {
			known = known || matches(wider, filter)
		}
		kept = kept || in.kept.match(filter)
	} else {
		handlers = append(handlers, h)
	}
	if h != nil || kept {
		in.handlers[filter] = handlers
		close(in.attached)
		in.attached = make(chan struct{})
	}
	return known || kept
}

// subscribed keeps a new filter that the broker accepts, and drops one that it
// does not.
func (in *inbox) subscribed(filter string, accepted bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !accepted {
		delete(in.handlers, filter)
		return
	}
	if in.handlers[filter] == nil {
		in.handlers[filter] = nil // known, though without a handler
	}
	in.kept.add(filter)
}

// handlersOf returns the handlers of a topic, whether any filter is for it, and
// what is closed when there is another filter.
func (in *inbox) handlersOf(topic string) (all []Handler, known bool, attached <-chan struct{}) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for filter, handlers := range in.handlers {
		if matches(filter, topic) {
			known, all = true, append(all, handlers...)
		}
	}
	return all, known, in.attached
}

// await has a question answered by a message on one of the topics.
func (in *inbox) await(topics []string, q *question) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, on := range topics {
		in.asked[on] = append(in.asked[on], q)
	}
}

func (in *inbox) forget(topics []string, q *question) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, on := range topics {
		in.asked[on] = slices.DeleteFunc(in.asked[on], func(other *question) bool { return other == q })
		if len(in.asked[on]) == 0 {
			delete(in.asked, on)
		}
	}
}

// answer gives a message to the questions that it is the reply to.
func (in *inbox) answer(m Message) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, q := range in.asked[m.Topic] {
		if q.is(m) {
			select {
			case q.reply <- m:
			default: // answered before
			}
		}
	}
}

// filters are those that a broker keeps for a persistent session and that this
// process has asked for. What an earlier process asked for is not known, and
// asked for again. A nil *filters has none and takes none.
type filters struct {
	mu      sync.Mutex
	set     map[string]bool
	resumed bool // by this session
}

// keptAt is what the broker at endpoint keeps, by the word of its CONNACK.
func (d *Dialer) keptAt(endpoint string, present bool) *filters {
	if !d.cfg.Persistent {
		return nil
	}
	if d.kept[endpoint] == nil || !present {
		d.kept[endpoint] = &filters{set: make(map[string]bool)}
		return d.kept[endpoint]
	}
	d.kept[endpoint].resume()
	return d.kept[endpoint]
}

// doubt ends a session that the broker says it kept and in which no reply ever
// came: the filters may be lost. The next one asks for them.
func (s *Session) doubt() {
	if s.inbox.heard.Load() || !s.inbox.kept.clear() {
		return
	}
	s.end(errors.New("no reply in a session that the broker kept: the filters are asked for again"))
}

func (f *filters) resume() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resumed = true
}

// clear forgets the filters, and reports whether there were any of a session
// before.
func (f *filters) clear() bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	had := f.resumed && len(f.set) > 0
	clear(f.set)
	return had
}

func (f *filters) has(filter string) bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.set[filter]
}

func (f *filters) add(filter string) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set[filter] = true
}

// match reports whether a topic falls under one of them.
func (f *filters) match(topic string) bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for filter := range f.set {
		if matches(filter, topic) {
			return true
		}
	}
	return false
}
