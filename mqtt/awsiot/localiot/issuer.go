package localiot

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

// answerIssuer is the issuer "topics": what a Lambda behind
// keyvet/{thing}/certificate/{create,commit} does, which has a certificate
// authority of its own at hand. certificateID is whose connection asks.
//
// The new certificate is active at once. On commit, which only the new
// certificate itself may say, all others of the thing are deactivated.
func (s *Server) answerIssuer(thing, certificateID, operation string, payload []byte, send reply) {
	var request struct {
		ClientToken   string `json:"clientToken"`
		JobID         string `json:"jobId"`
		CSR           string `json:"csr"`
		CertificateID string `json:"certificateId"`
	}
	var answer map[string]any
	err := func() (err error) {
		if decode(payload, &request) != nil {
			return &provisionError{code: "InvalidPayload", message: "the request cannot be read"}
		}
		if s.strikes(func(f Faults) bool { return f.Throttle }) {
			return &provisionError{code: "Throttled", message: "too many requests"}
		}
		switch operation {
		case "create":
			answer, err = s.createByTopics(thing, request.CSR)
		case "commit":
			answer, err = s.commitByTopics(thing, certificateID, request.CertificateID)
		}
		return err
	}()
	suffix := "accepted"
	if err != nil {
		suffix = "rejected"
		rejected := &provisionError{code: "InternalError", message: "internal failure"}
		if !errors.As(err, &rejected) {
			s.log.Error("issuer", "thing", thing, "error", err)
		}
		answer = map[string]any{"code": rejected.code, "message": rejected.message}
	}
	if answer == nil {
		return // silent by a fault
	}
	if request.ClientToken != "" {
		answer["clientToken"] = request.ClientToken
	}
	send(suffix, answer)
}

func (s *Server) createByTopics(thing, csr string) (map[string]any, error) {
	if s.strikes(func(f Faults) bool { return f.CreateSilent }) {
		return nil, nil
	}
	if s.strikes(func(f Faults) bool { return f.CreateRejected }) {
		return nil, &provisionError{code: "Rejected", message: "the issuer does not sign this"}
	}
	status := Active
	if s.strikes(func(f Faults) bool { return f.NeverActivated }) {
		status = PendingActivation
	}
	id, chain, err := s.sign(csr, registration{Thing: thing, Status: status, Requested: true})
	if err != nil {
		return nil, err
	}
	var authorities strings.Builder
	for _, der := range chain[1:] {
		authorities.Write(certificatePEM(der))
	}
	return map[string]any{"certificateId": id, "certificatePem": string(certificatePEM(chain[0])), "chainPem": authorities.String()}, nil
}

func (s *Server) commitByTopics(thing, principal, id string) (map[string]any, error) {
	if s.strikes(func(f Faults) bool { return f.CommitSilent }) {
		return nil, nil
	}
	if id != principal {
		return nil, &provisionError{code: "Forbidden", message: "a certificate is committed by itself"}
	}
	s.mu.Lock()
	var retired []string
	for _, other := range slices.Sorted(maps.Keys(s.registry.Certificates)) {
		if r := s.registry.Certificates[other]; r.Thing == thing && other != id && r.Status != Inactive {
			r.Status = Inactive
			retired = append(retired, other)
		}
	}
	err := s.registry.save(s.dir)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	for _, other := range retired {
		s.disconnect(other)
	}
	return map[string]any{"certificateId": id}, nil
}
