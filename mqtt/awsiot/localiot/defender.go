package localiot

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// defenderEvery is how often AWS IoT Device Defender takes a report of one
// thing ("Device-side metrics": the shortest interval is five minutes).
const defenderEvery = 5 * time.Minute

// maxMetric bounds the values of one custom metric (API reference,
// "CreateCustomMetric", and the quotas of Device Defender).
const maxMetric = 100

// answerDefender takes a metrics report (AWS IoT Developer Guide, "Sending
// metrics from devices").
func (s *Server) answerDefender(thing string, payload []byte, send reply) {
	now := time.Now()
	id, err := checkMetrics(payload)
	code := "InvalidPayload"
	if err == nil {
		s.mu.Lock()
		last, reported := s.defended[thing]
		switch {
		case s.strikesLocked(func(f Faults) bool { return f.Throttle }), reported && now.Sub(last.at) < defenderEvery:
			code, err = "Throttled", errors.New("one report in five minutes is taken")
		case reported && id <= last.id:
			err = fmt.Errorf("report_id %d is not above %d", id, last.id)
		default:
			s.defended[thing] = defended{now, id}
		}
		s.mu.Unlock()
	}
	answer := map[string]any{"thingName": thing, "timestamp": now.UnixMilli(), "status": "ACCEPTED"}
	if id != 0 {
		answer["reportId"] = id
	}
	if err != nil {
		answer["status"] = "REJECTED"
		answer["statusDetails"] = map[string]any{"ErrorCode": code, "ErrorMessage": err.Error()}
		send("rejected", answer)
		return
	}
	send("accepted", answer)
}

// defended is the last report of a thing that was taken.
type defended struct {
	at time.Time
	id int64
}

// checkMetrics returns what is wrong with a metrics report, whose members may
// have their long or their short names.
func checkMetrics(payload []byte) (reportID int64, err error) {
	type header struct {
		ReportID *int64 `json:"report_id"`
		Rid      *int64 `json:"rid"`
		Version  string `json:"version"`
		V        string `json:"v"`
	}
	var report struct {
		Header *header                      `json:"header"`
		Hed    *header                      `json:"hed"`
		Custom map[string][]json.RawMessage `json:"custom_metrics"`
		Cmet   map[string][]json.RawMessage `json:"cmet"`
		Own    json.RawMessage              `json:"metrics"`
		Met    json.RawMessage              `json:"met"`
	}
	if err := decode(payload, &report); err != nil {
		return 0, errors.New("the report cannot be read")
	}
	h := report.Header
	if h == nil {
		h = report.Hed
	}
	if h == nil {
		return 0, errors.New("no header")
	}
	id := h.ReportID
	if id == nil {
		id = h.Rid
	}
	if id == nil || *id <= 0 {
		return 0, errors.New("no report_id above 0")
	}
	if h.Version+h.V != "1.0" {
		return *id, errors.New("the version is not 1.0")
	}
	custom := report.Custom
	if custom == nil {
		custom = report.Cmet
	}
	if len(custom) == 0 && report.Own == nil && report.Met == nil {
		return *id, errors.New("no metrics")
	}
	for name, values := range custom {
		if !validName(name) || len(values) != 1 {
			return *id, fmt.Errorf("custom metric %.140q is not an array of one object", name)
		}
		if err := checkMetric(values[0]); err != nil {
			return *id, fmt.Errorf("custom metric %s: %v", name, err)
		}
	}
	return *id, nil
}

func checkMetric(value json.RawMessage) error {
	var object map[string]json.RawMessage
	if json.Unmarshal(value, &object) != nil || len(object) != 1 {
		return errors.New("not an object of one member")
	}
	for kind, v := range object {
		var n int
		var err error
		switch kind {
		case "number":
			var number float64
			if err = json.Unmarshal(v, &number); string(v) == "null" {
				err = errors.New("null")
			}
		case "number_list":
			var list []float64
			err = json.Unmarshal(v, &list)
			n = len(list)
		case "string_list":
			var list []string
			err = json.Unmarshal(v, &list)
			n = len(list)
		case "ip_list":
			var list []netip.Addr
			err = json.Unmarshal(v, &list)
			n = len(list)
		default:
			return fmt.Errorf("a value of kind %.80q", kind)
		}
		if err != nil || n > maxMetric {
			return fmt.Errorf("not a %s", kind)
		}
	}
	return nil
}
