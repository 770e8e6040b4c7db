package advisory

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/keyvet/keyvet/device"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		manufacturer, family string
		version              string
		affected, fixed      string // ids, with spaces between
	}{
		// CVE-2017-15361, both sides of every bound.
		{"IFX", "1.2", "3.19", "", ""},
		{"IFX", "1.2", "4.0", "cve-2017-15361-ifx-4.0", ""},
		{"IFX", "1.2", "4.33", "cve-2017-15361-ifx-4.0", ""},
		{"IFX", "1.2", "4.34", "", "cve-2017-15361-ifx-4.0"},
		{"IFX", "1.2", "4.39", "", "cve-2017-15361-ifx-4.0"},
		{"IFX", "1.2", "4.40", "cve-2017-15361-ifx-4.40", ""},
		{"IFX", "1.2", "4.42", "cve-2017-15361-ifx-4.40", ""},
		{"IFX", "1.2", "4.43", "", "cve-2017-15361-ifx-4.40"},
		{"IFX", "1.2", "5.0", "", ""},
		{"IFX", "2.0", "4.33.0.0", "", ""},
		{"IFX", "2.0", "5.0.1089.0", "cve-2017-15361-ifx-5", ""},
		{"IFX", "2.0", "5.61.2785.0", "cve-2017-15361-ifx-5", ""},
		{"IFX", "2.0", "5.62.3126.0", "", "cve-2017-15361-ifx-5"},
		{"IFX", "2.0", "6.0.0.0", "", ""},
		{"IFX", "1.2", "6.40", "cve-2017-15361-ifx-6", ""},
		{"IFX", "1.2", "6.42", "cve-2017-15361-ifx-6", ""},
		{"IFX", "1.2", "6.43", "", "cve-2017-15361-ifx-6"},
		{"IFX", "2.0", "7.40.2098.0", "cve-2017-15361-ifx-7 cve-2025-2884-ifx-7.6", ""},
		{"IFX", "2.0", "7.61.2785.0", "cve-2017-15361-ifx-7 cve-2025-2884-ifx-7.6", ""},
		{"IFX", "2.0", "7.62.3126.0", "cve-2025-2884-ifx-7.6", "cve-2017-15361-ifx-7"},
		{"IFX", "2.0", "7.85.4555.0", "cve-2025-2884-ifx-7.8", "cve-2017-15361-ifx-7"},
		{"IFX", "2.0", "8.0.0.0", "", ""},
		{"IFX", "1.2", "133.32", "cve-2017-15361-ifx-133", ""},
		{"IFX", "1.2", "133.33", "", "cve-2017-15361-ifx-133"},
		{"IFX", "1.2", "149.32", "cve-2017-15361-ifx-149", ""},
		{"IFX", "2.0", "149.33", "", "cve-2017-15361-ifx-149"},
		{"STM", "2.0", "7.61", "", ""}, // the version of another maker
		// CVE-2019-16863
		{"STM", "2.0", "71.0", "cve-2019-16863-stm-71", ""},
		{"STM", "2.0", "71.4", "cve-2019-16863-stm-71", ""},
		{"STM", "2.0", "71.12", "cve-2019-16863-stm-71", ""},
		{"STM", "2.0", "71.8", "cve-2019-16863-stm-71", ""}, // not listed, and before the fix
		{"STM", "2.0", "71.16", "", "cve-2019-16863-stm-71"},
		{"STM", "2.0", "71.17", "", "cve-2019-16863-stm-71"},
		{"STM", "2.0", "73.0", "cve-2019-16863-stm-73.0", ""},
		{"STM", "2.0", "73.4", "cve-2019-16863-stm-73.0", ""},
		{"STM", "2.0", "73.20", "", "cve-2019-16863-stm-73.0"},
		{"STM", "2.0", "73.8", "cve-2019-16863-stm-73.8", ""},
		{"STM", "2.0", "73.64", "", "cve-2019-16863-stm-73.8"},
		{"STM", "2.0", "73.5", "cve-2019-16863-stm-73.5", ""},
		{"STM", "2.0", "73.21", "", "cve-2019-16863-stm-73.5"},
		{"STM", "2.0", "73.9", "cve-2019-16863-stm-73.9", ""},
		{"STM", "2.0", "73.65", "", "cve-2019-16863-stm-73.9"},
		{"STM", "2.0", "73.1", "", ""},
		{"STM", "2.0", "74.0", "cve-2019-16863-stm-74.0", ""},
		{"STM", "2.0", "74.4", "cve-2019-16863-stm-74.0", ""},
		{"STM", "2.0", "74.20", "", "cve-2019-16863-stm-74.0"},
		{"STM", "2.0", "74.8", "cve-2019-16863-stm-74.8", ""},
		{"STM", "2.0", "74.16", "cve-2019-16863-stm-74.8", ""},
		{"STM", "2.0", "74.64", "", "cve-2019-16863-stm-74.8"},
		{"STM", "2.0", "74.5", "cve-2019-16863-stm-74.5", ""},
		{"STM", "2.0", "74.21", "", "cve-2019-16863-stm-74.5"},
		{"STM", "2.0", "74.9", "cve-2019-16863-stm-74.9", ""},
		{"STM", "2.0", "74.65", "", "cve-2019-16863-stm-74.9"},
		// CVE-2019-11090 and CVE-2018-3659
		{"INTC", "2.0", "11.8.50.3426", "cve-2019-11090-intc-11.8 cve-2018-3659-intc-11", ""},
		{"INTC", "2.0", "11.8.64.9999", "cve-2019-11090-intc-11.8 cve-2018-3659-intc-11", ""},
		{"INTC", "2.0", "11.8.65.0", "cve-2018-3659-intc-11", "cve-2019-11090-intc-11.8"},
		{"INTC", "2.0", "11.11.64.0", "cve-2019-11090-intc-11.11 cve-2018-3659-intc-11", ""},
		{"INTC", "2.0", "11.11.65.0", "cve-2018-3659-intc-11", "cve-2019-11090-intc-11.11"},
		{"INTC", "2.0", "11.22.64.0", "cve-2019-11090-intc-11.22 cve-2018-3659-intc-11", ""},
		{"INTC", "2.0", "11.22.65.0", "cve-2018-3659-intc-11", "cve-2019-11090-intc-11.22"},
		{"INTC", "2.0", "12.0.4.0", "cve-2019-11090-intc-12.0 cve-2018-3659-intc-12", ""},
		{"INTC", "2.0", "12.0.5.0", "cve-2019-11090-intc-12.0", "cve-2018-3659-intc-12"},
		{"INTC", "2.0", "12.0.34.9", "cve-2019-11090-intc-12.0", "cve-2018-3659-intc-12"},
		{"INTC", "2.0", "12.0.35.0", "", "cve-2019-11090-intc-12.0 cve-2018-3659-intc-12"},
		{"INTC", "2.0", "13.0.1200.0", "cve-2019-11090-intc-13.0", "cve-2018-3659-intc-12"},
		{"INTC", "2.0", "13.0.1201.0", "", "cve-2019-11090-intc-13.0 cve-2018-3659-intc-12"},
		{"INTC", "2.0", "14.0.9.0", "cve-2019-11090-intc-14.0", "cve-2018-3659-intc-12"},
		{"INTC", "2.0", "14.0.10.0", "", "cve-2019-11090-intc-14.0 cve-2018-3659-intc-12"},
		{"INTC", "2.0", "600.18.27.0", "", "cve-2018-3659-intc-12"},
		{"INTC", "2.0", "11.8.97.4050", "cve-2018-3659-intc-11", "cve-2019-11090-intc-11.8"}, // the last of its line
		{"INTC", "2.0", "11.6.0.1155", "cve-2018-3659-intc-11", ""},
		{"INTC", "2.0", "3.1.50.3328", "cve-2019-11090-intc-txe-3.1 cve-2018-3659-intc-txe", ""}, // TXE, which has other numbers
		{"INTC", "2.0", "3.1.65.0", "cve-2018-3659-intc-txe", "cve-2019-11090-intc-txe-3.1"},
		{"INTC", "2.0", "4.0.10.1288", "cve-2019-11090-intc-txe-4.0", ""},
		{"INTC", "2.0", "4.0.15.0", "", "cve-2019-11090-intc-txe-4.0"},
		{"INTC", "2.0", "10.0.0.0", "", ""},
		// Nuvoton
		{"NTC", "2.0", "7.2.0.1", "cve-2020-25082-ntc-7.2 cve-2025-2884-ntc-7 cve-2026-6923-ntc-7", ""},
		{"NTC", "2.0", "7.2.0.2", "cve-2020-25082-ntc-7.2 cve-2025-2884-ntc-7 cve-2026-6923-ntc-7", ""},
		{"NTC", "2.0", "7.2.1.0", "cve-2020-25082-ntc-7.2 cve-2025-2884-ntc-7 cve-2026-6923-ntc-7", ""},
		{"NTC", "2.0", "7.2.1.1", "cve-2020-25082-ntc-7.2 cve-2025-2884-ntc-7 cve-2026-6923-ntc-7", ""},
		{"NTC", "2.0", "7.2.2.0", "cve-2025-2884-ntc-7 cve-2026-6923-ntc-7", "cve-2020-25082-ntc-7.2"},
		{"NTC", "2.0", "7.2.3.9", "cve-2025-2884-ntc-7 cve-2026-6923-ntc-7", "cve-2020-25082-ntc-7.2"},
		{"NTC", "2.0", "7.2.4.0", "cve-2025-2884-ntc-7", "cve-2020-25082-ntc-7.2 cve-2026-6923-ntc-7"},
		{"NTC", "2.0", "7.2.4.1", "", "cve-2020-25082-ntc-7.2 cve-2025-2884-ntc-7 cve-2026-6923-ntc-7"},
		{"NTC", "1.2", "7.4.0.0", "cve-2021-32015-ntc-7.4", ""},
		{"NTC", "1.2", "7.4.0.1", "", "cve-2021-32015-ntc-7.4"},
		{"NTC", "2.0", "1.3.0.1", "cve-2023-1017-ntc-1.3", ""},
		{"NTC", "2.0", "1.3.1.0", "cve-2023-1017-ntc-1.3", ""},
		{"NTC", "2.0", "1.3.2.8", "cve-2023-1017-ntc-1.3", ""},
		{"NTC", "2.0", "1.3.2.9", "cve-2023-1017-ntc-1.3", ""}, // not listed, and before the fix
		{"NTC", "2.0", "1.3.2.20", "", "cve-2023-1017-ntc-1.3"},
		// CVE-2025-2884
		{"IFX", "2.0", "15.20.15686.0", "cve-2025-2884-ifx-15", ""},
		{"IFX", "2.0", "15.21.16430.0", "cve-2025-2884-ifx-15", ""},
		{"IFX", "2.0", "15.22.16832.0", "cve-2025-2884-ifx-15", ""},
		{"IFX", "2.0", "15.23.17664.0", "", "cve-2025-2884-ifx-15"},
		{"IFX", "2.0", "7.63.3353.0", "cve-2025-2884-ifx-7.6", "cve-2017-15361-ifx-7"},
		{"IFX", "2.0", "7.66.19374.1", "cve-2025-2884-ifx-7.6", "cve-2017-15361-ifx-7"},
		{"IFX", "2.0", "7.66.19374.2", "", "cve-2017-15361-ifx-7 cve-2025-2884-ifx-7.6"},
		{"IFX", "2.0", "7.70.0.0", "", "cve-2017-15361-ifx-7"}, // of neither line
		{"IFX", "2.0", "7.67.19690.2", "", "cve-2017-15361-ifx-7 cve-2025-2884-ifx-7.6"},
		{"IFX", "2.0", "7.83.3358.0", "cve-2025-2884-ifx-7.8", "cve-2017-15361-ifx-7"},
		{"IFX", "2.0", "7.86.19393.1", "cve-2025-2884-ifx-7.8", "cve-2017-15361-ifx-7"},
		{"IFX", "2.0", "7.86.19393.2", "", "cve-2017-15361-ifx-7 cve-2025-2884-ifx-7.8"},
		{"IFX", "2.0", "16.10.16384.0", "cve-2025-2884-ifx-16", ""},
		{"IFX", "2.0", "16.13.17664.0", "", "cve-2025-2884-ifx-16"},
		{"IFX", "2.0", "17.12.16832.0", "cve-2025-2884-ifx-17", ""},
		{"IFX", "2.0", "17.24.18954.0", "", "cve-2025-2884-ifx-17"},
		{"IFX", "2.0", "26.10.16384.0", "cve-2025-2884-ifx-26", ""},
		{"IFX", "2.0", "26.13.17664.0", "", "cve-2025-2884-ifx-26"},
		{"IFX", "2.0", "27.10.16384.0", "cve-2025-2884-ifx-27", ""},
		{"IFX", "2.0", "27.13.17664.0", "", "cve-2025-2884-ifx-27"},
		{"IFX", "2.0", "28.0.0.0", "", ""},
		// Unknown makers and versions.
		{"AMD", "2.0", "3.55.0.5", "amd-pa-420-amd-3", ""},
		{"AMD", "2.0", "3.94.2.5", "", "amd-pa-420-amd-3"},
		{"AMD", "2.0", "3.94.1.0", "", ""},
		{"AMD", "2.0", "3.94", "", ""},
		{"AMD", "2.0", "6.24.0.6", "", ""},
		{"IBM", "2.0", "8217.4131.22.13878", "", ""},
		{"", "", "", "", ""},
		{"IFX", "2.0", "", "", ""},
		{"IFX", "2.0", "7", "", ""},   // does not tell 7.61 from 7.62
		{"NTC", "1.2", "7.4", "", ""}, // does not tell 7.4.0.0 from 7.4.0.1
		{"IFX", "2.0", "7.61.2785.0.1", "", ""},
		{"IFX", "2.0", "7.-1", "", ""},
		{"IFX", "2.0", "7.61 ", "", ""},
		{"IFX", "2.0", "7.99999999999999999999", "", ""},
	} {
		info := device.TPM{Manufacturer: c.manufacturer, Family: c.family, FirmwareVersion: c.version, State: device.TPMOK}
		var affected, fixed []string
		for _, a := range Match(info) {
			if a.Affected {
				affected = append(affected, a.ID)
			} else {
				fixed = append(fixed, a.ID)
			}
		}
		if strings.Join(affected, " ") != c.affected || strings.Join(fixed, " ") != c.fixed {
			t.Errorf("%s %s: affected %v, want %q; fixed %v, want %q", c.manufacturer, c.version, affected, c.affected, fixed, c.fixed)
		}
		for _, state := range []device.TPMState{"", device.TPMDegraded, device.TPMAbsent} {
			if info.State = state; Match(info) != nil {
				t.Errorf("%+v matches", info)
			}
		}
	}
}

func TestMatchFillsIn(t *testing.T) {
	got := Match(device.TPM{Manufacturer: "IFX", Family: "2.0", FirmwareVersion: "7.61.2785.0", State: device.TPMOK})
	want := device.Advisory{
		ID: "cve-2017-15361-ifx-7", CVE: "CVE-2017-15361", Part: "IFX TPM 2.0 SLB9670, 7.x", Touches: "RSA key generation", Weakens: device.WeakensRSAMade,
		Affected: true, Range: "<= 7.61", Fixed: "7.62", Sure: "C", Source: "https://nvd.nist.gov/vuln/detail/CVE-2017-15361", Severity: device.Critical,
	}
	if len(got) != 2 || got[0] != want {
		t.Errorf("%+v", got)
	}
	got = Match(device.TPM{Manufacturer: "IFX", Family: "1.2", FirmwareVersion: "149.1", State: device.TPMOK})
	if len(got) != 1 || got[0].Sure != "S" || got[0].Severity != device.High {
		t.Errorf("one secondary source must lower the severity: %+v", got)
	}
}

// The table of advisories, by number: what is dropped must be dropped on purpose.
func TestBuiltin(t *testing.T) {
	byCVE := make(map[string]int)
	for _, e := range builtin().list {
		byCVE[e.CVE]++
		if e.Weakens == device.WeakensAny {
			t.Errorf("%s does not say which keys it weakens", e.ID)
		}
		if !strings.HasPrefix(e.ID, strings.ToLower(e.CVE)+"-"+strings.ToLower(e.Manufacturer)) {
			t.Errorf("%s is not named after CVE and manufacturer", e.ID)
		}
	}
	want := map[string]int{
		"CVE-2017-15361": 7, "CVE-2019-16863": 9, "CVE-2019-11090": 8, "CVE-2018-3659": 3, "CVE-2020-25082": 1,
		"CVE-2021-32015": 1, "CVE-2023-1017": 1, "CVE-2025-2884": 8, "CVE-2026-6923": 1, "AMD-PA-420": 1,
	}
	for cve, n := range want {
		if byCVE[cve] != n {
			t.Errorf("%d of %s, want %d", byCVE[cve], cve, n)
		}
	}
	if len(byCVE) != len(want) {
		t.Errorf("%d CVEs, want %d", len(byCVE), len(want))
	}
}

const further = `{"format": "keyvet.advisories/1", "advisories": [{
	"id": "x-1", "cve": "CVE-2030-1", "part": "X", "touches": "all", "manufacturer": "XXX",
	"line": [{"from": "1", "to": "1"}], "affected": [{"before": "1.5"}], "fixed": "1.5", "sure": "P", "severity": "HIGH", "source": "https://example.org/1"}]}`

func TestLoad(t *testing.T) {
	list, err := Load(strings.NewReader(further))
	if err != nil {
		t.Fatal(err)
	}
	info := device.TPM{Manufacturer: "XXX", Family: "2.0", FirmwareVersion: "1.4.9.0", State: device.TPMOK}
	if got := Match(info, list); len(got) != 1 || got[0].ID != "x-1" || !got[0].Affected || got[0].Range != "< 1.5" {
		t.Errorf("%+v", got)
	}
	if Match(info) != nil {
		t.Error("the built-in list matches it")
	}
	for _, c := range []struct{ old, new, want string }{
		{further, "", "EOF"},
		{further, "[]", "cannot unmarshal array"},
		{"advisories/1", "advisories/2", `instead of "keyvet.advisories/1"`},
		{`"format"`, `"Formats"`, "unknown field"},
		{`"id"`, `"name": "x", "id"`, "unknown field"},
		{`"x-1"`, `""`, "id is missing"},
		{`"CVE-2030-1"`, `""`, "cve is missing"},
		{`"XXX"`, `""`, "manufacturer is missing"},
		{`"sure": "P"`, `"sure": "Q"`, "none of P, C and S"},
		{`"HIGH"`, `"BAD"`, "severity"},
		{`"https:`, `"http:`, "not an https URL"},
		{`"fixed": "1.5"`, `"fixed": ""`, "fixed is missing"},
		{`"fixed": "1.5"`, `"fixed": "1.5", "unfixed": true`, "both fixed and unfixed"},
		{`"sure": "P"`, `"sure": "P", "weakens": "all"`, "none of rsa-made"},
		{`"fixed": "1.5"`, `"fixed": "1.4"`, "among the affected"},
		{`"fixed": "1.5"`, `"fixed": "2.0"`, "not of the line"},
		{`"fixed": "1.5"`, `"fixed": "1.05"`, "not a version"},
		{`{"before": "1.5"}`, `{"before": "v1.5"}`, "not a version"},
		{`{"before": "1.5"}`, `{"before": "1.5.0.0.0"}`, "not a version"},
		{`{"before": "1.5"}`, `{}`, "without bounds"},
		{`{"before": "1.5"}`, `{"like": "1.*.x"}`, "not a version"},
		{`{"before": "1.5"}`, `{"like": "1.*", "to": "1.4"}`, "both like and a bound"},
		{`"fixed": "1.5"`, `"fixed": "1.*.x"`, "not a version"},
		{`"format"`, `"reviewed": "last year", "format"`, "not a date"},
		{`{"before": "1.5"}`, `{"to": "1.3", "before": "1.5"}`, "both to and before"},
		{`{"before": "1.5"}`, `{"from": "1.5", "before": "1.5"}`, "is empty"},
		{`{"before": "1.5"}`, `{"from": "1.5", "to": "1.4"}`, "is empty"},
		{`[{"before": "1.5"}]`, `[]`, "line or affected is missing"},
		{`[{"from": "1", "to": "1"}]`, `[]`, "line or affected is missing"},
		{`"line"`, `"family": "3.0", "line"`, "family"},
		{`/1"}]}`, `/1"}]} {}`, "follows"},
		{`}]}`, `}`, "unexpected EOF"},
	} {
		text := strings.Replace(further, c.old, c.new, 1)
		if text == further {
			t.Fatalf("%q is not in the sample", c.old)
		}
		if _, err := Load(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q for %q: %v, want %q", c.new, c.old, err, c.want)
		}
	}
	twice := strings.Replace(further, "}]}", "},"+further[strings.Index(further, `{
`):], 1)
	if _, err := Load(strings.NewReader(twice)); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("an id that is there twice: %v", err)
	}
	if _, err := Load(bytes.NewReader(make([]byte, MaxBytes+1))); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a large file: %v", err)
	}
	broken := errors.New("broken")
	if _, err := Load(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("a file that cannot be read: %v", err)
	}
}

// TestSeverities holds the severities that the sources give.
func TestSeverities(t *testing.T) {
	for _, e := range builtin().list {
		if e.CVE == "CVE-2020-25082" && e.Severity != device.Low { // CVSS 3.8: physical access, high privileges
			t.Errorf("%s is %s", e.ID, e.Severity)
		}
		if e.Unfixed && e.CVE != "CVE-2018-3659" {
			t.Errorf("%s has no fix", e.ID)
		}
	}
}

func TestRangeString(t *testing.T) {
	for want, r := range map[string]Range{
		"4.40 to 4.42": {From: "4.40", To: "4.42"}, "<= 4.33": {To: "4.33"}, "< 12.0.5": {Before: "12.0.5"},
		"71.0": {From: "71.0", To: "71.0"}, ">= 1": {From: "1"}, "3.*.0": {Like: "3.*.0"}, ">= 1 and < 2": {From: "1", Before: "2"},
	} {
		if r.String() != want {
			t.Errorf("%q, want %q", r, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(further), "1.4")
	f.Add(embedded, "7.61.2785.0")
	f.Add([]byte(`{"format": "keyvet.advisories/1"}`), "")
	f.Fuzz(func(t *testing.T, b []byte, version string) {
		list, err := Load(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, e := range list {
			info := device.TPM{Manufacturer: e.Manufacturer, Family: e.Family, FirmwareVersion: version, State: device.TPMOK}
			Match(info, list)
			info.FirmwareVersion = e.Fixed
			for _, a := range list.match(info) {
				if a.ID == e.ID && a.Affected {
					t.Fatalf("%s: the fix is affected", e.ID)
				}
			}
		}
		if again, err := json.Marshal(map[string]any{"format": Format, "advisories": list}); err == nil {
			if _, err := Load(bytes.NewReader(again)); err != nil && len(again) <= MaxBytes {
				t.Fatalf("what was loaded does not load again: %v", err)
			}
		}
	})
}
