package format

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
)

const (
	home     = "https://github.com/keyvet/keyvet"
	findings = home + "/blob/main/docs/findings.md" // what each reason code means
)

// The parts of a log of SARIF 2.1.0 (OASIS Standard, Static Analysis Results
// Interchange Format) that keyvet has something for.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool         `json:"tool"`
		Invocations []sarifInvocation `json:"invocations"`
		Results     []sarifResult     `json:"results"`
		Properties  map[string]any    `json:"properties"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name          string      `json:"name"`
		Version       string      `json:"version,omitempty"`
		Information   string      `json:"informationUri"`
		Rules         []sarifRule `json:"rules"`
		Notifications []sarifRule `json:"notifications"`
	}
	sarifRule struct {
		ID         string         `json:"id"`
		Short      sarifText      `json:"shortDescription"`
		Help       *sarifText     `json:"help,omitempty"`
		HelpURI    string         `json:"helpUri"`
		Properties map[string]any `json:"properties,omitempty"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifInvocation struct {
		Successful    bool                `json:"executionSuccessful"`
		End           string              `json:"endTimeUtc"`
		Notifications []sarifNotification `json:"toolExecutionNotifications"`
	}
	sarifNotification struct {
		Descriptor map[string]string `json:"descriptor"`
		Level      string            `json:"level"`
		Message    sarifText         `json:"message"`
	}
	sarifResult struct {
		RuleID       string             `json:"ruleId"`
		RuleIndex    int                `json:"ruleIndex"`
		Kind         string             `json:"kind"`
		Level        string             `json:"level"`
		Message      sarifText          `json:"message"`
		Locations    []sarifLocation    `json:"locations"`
		Fingerprints map[string]string  `json:"partialFingerprints"`
		Suppressions []sarifSuppression `json:"suppressions,omitempty"`
		Properties   map[string]any     `json:"properties"`
	}
	sarifLocation struct {
		Physical *sarifPhysical    `json:"physicalLocation,omitempty"`
		Logical  []sarifLogicalKey `json:"logicalLocations"`
	}
	sarifPhysical struct {
		Artifact map[string]string `json:"artifactLocation"`
		Region   map[string]int    `json:"region,omitempty"`
	}
	sarifLogicalKey struct {
		Name string `json:"name"`
		Kind string `json:"kind"`
	}
	sarifSuppression struct {
		Kind          string `json:"kind"`
		Status        string `json:"status"`
		Justification string `json:"justification"`
	}
)

// SARIF writes a report as a log of SARIF 2.1.0. Each reason code is a rule, each
// finding a result, one that the operator accepts a suppressed result, and what
// could not be checked a notification. A run with a gap that is not minor is not
// successful.
func SARIF(w io.Writer, r *device.Report) error {
	run := sarifRun{
		Tool: sarifTool{sarifDriver{
			Name: "keyvet", Version: r.Agent.Version, Information: home, Rules: []sarifRule{},
			Notifications: []sarifRule{{ID: device.CouldNotLook.Code, Short: sarifText{device.CouldNotLook.Means}, Help: &sarifText{device.CouldNotLook.Do}, HelpURI: findings}},
		}},
		Results:    []sarifResult{},
		Properties: map[string]any{"verdict": r.Verdict().String(), "reportId": r.ID},
	}
	invocation := sarifInvocation{Successful: true, End: r.Time.UTC().Format(time.RFC3339), Notifications: []sarifNotification{}}
	for _, g := range gaps(r) {
		level := "note"
		if !g.Minor {
			level, invocation.Successful = "error", false
		}
		invocation.Notifications = append(invocation.Notifications, sarifNotification{
			Descriptor: map[string]string{"id": device.CouldNotLook.Code}, Level: level, Message: sarifText{g.What + ": " + g.Why},
		})
	}
	run.Invocations = []sarifInvocation{invocation}
	rules := make(map[string]int)
	for _, i := range items(r) {
		id := i.ReasonCode
		if id == "" {
			id = i.Check
		}
		at, known := rules[id]
		if !known {
			at = len(rules)
			rules[id] = at
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, rule(id, i.Finding))
		}
		run.Results = append(run.Results, result(r, i, id, at))
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(sarifLog{
		Schema:  "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
		Version: "2.1.0", Runs: []sarifRun{run},
	})
}

var reasonOf = check.ReasonOf // tests have reasons of their own

// rule is what there is to know of a reason code; of what passed, of the check.
func rule(id string, f device.Finding) sarifRule {
	r := sarifRule{ID: id, Short: sarifText{"Check " + f.Check + "."}, HelpURI: findings, Properties: map[string]any{"tags": []string{"security", f.Check}}}
	if reason, ok := reasonOf(f.Check, id); ok {
		r.Short.Text, r.Help = reason.Means, &sarifText{reason.Do}
	}
	if f.Citation != "" {
		r.HelpURI = f.Citation
	}
	// Of GitHub's own scale, 0 to 10.
	if n, ok := map[device.Severity]string{device.Low: "2.0", device.Medium: "5.0", device.High: "8.0", device.Critical: "9.5"}[f.Severity]; ok {
		r.Properties["security-severity"] = n
	}
	return r
}

func result(r *device.Report, i item, id string, rule int) sarifResult {
	kind, level := "fail", "error"
	switch i.Status {
	case device.Warn:
		level = "warning"
	case device.Pass:
		kind, level = "pass", "none"
	case device.Undecided:
		kind, level = "open", "none"
	}
	file, line, other := i.place()
	where := sarifLocation{Logical: []sarifLogicalKey{{Name: i.Key, Kind: "resource"}}}
	if file != "" {
		where.Physical = &sarifPhysical{Artifact: map[string]string{"uri": uri(file)}}
		if line > 0 {
			where.Physical.Region = map[string]int{"startLine": line}
		}
	} else if other != i.Key {
		where.Logical = append(where.Logical, sarifLogicalKey{Name: other, Kind: "resource"})
	}
	of := i.key.SPKISHA256
	if of == "" {
		of = i.Key
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{i.Check, id, of, file}, "\n")))
	res := sarifResult{
		RuleID: id, RuleIndex: rule, Kind: kind, Level: level, Message: sarifText{i.Message}, Locations: []sarifLocation{where},
		Fingerprints: map[string]string{"keyvetFinding/v1": hex.EncodeToString(sum[:16])},
		Properties:   map[string]any{"check": i.Check, "keyId": i.Key, "status": i.Status.String()},
	}
	for name, value := range map[string]string{
		"role": string(i.key.Role), "algorithm": i.key.Algorithm, "severity": string(i.Severity), "citation": i.Citation, "spkiSha256": i.key.SPKISHA256,
	} {
		if value != "" {
			res.Properties[name] = value
		}
	}
	if a, ok := r.AcceptedAs(i.Finding); ok {
		res.Suppressions = []sarifSuppression{{Kind: "external", Status: "accepted", Justification: a.String()}}
	}
	return res
}

// uri is a file as a URI reference (RFC 3986), relative if its path is.
func uri(path string) string {
	u := url.URL{Path: filepath.ToSlash(path)}
	if filepath.IsAbs(path) {
		u.Scheme = "file"
	}
	return u.String()
}
