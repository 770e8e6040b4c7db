package check

import (
	"slices"
	"strings"
	"unicode"

	"github.com/keyvet/keyvet/device"
)

// What the check compromised can give for the names in a certificate.
var (
	labelled = device.Reason{
		Code: "KEYVET_LABELLED_TEST_KEY", Status: device.Fail, Severity: device.Critical,
		Means: "The certificate or its issuer is named DO NOT TRUST or DO NOT SHIP: it has a test key of the firmware's maker, which many machines share.",
		Do:    "Replace the key and everything that relied on it; for a platform key, by an update of the firmware or one of your own; `keyvet rotate` replaces the device's.",
	}
	namedTest = device.Reason{
		Code: "KEYVET_NAMED_TEST_KEY", Status: device.Warn, Severity: device.Medium,
		Means: "The certificate or its issuer has a name that firmware's makers give to test keys, such as Test PK or TestRoot.",
		Do:    "Replace the key if it is not yours alone, or if the device is no test device; `keyvet rotate` replaces the device's.",
	}
)

// never are the words with which makers mark keys that must not leave the lab:
// those of the 22 platform keys of PKfail (CVE-2024-8105), as fwupd has them.
var never = []string{"do not trust", "do not ship"}

// testNames are names of test keys, word for word: UEFI's variables and signers
// as AMI, Intel and Tiano name theirs, and the roots of Windows' test signing.
var testNames = []string{
	"test pk", "test kek", "test db", "test dbx", "test platform key", "test key", "test signing",
	"testroot", "testsub", "testcert", "testpk", "testkey", "uefi test", "secure boot test",
	"microsoft test root", "microsoft testing root",
}

// label is about what the names of a certificate say of its key.
func label(k device.Key) []device.Finding {
	c := k.Leaf()
	if c == nil {
		return nil
	}
	names := [][2]string{{"the subject", c.Subject.String()}}
	if issuer := c.Issuer.String(); issuer != names[0][1] {
		names = append(names, [2]string{"the issuer", issuer})
	}
	for _, name := range names {
		whose, text := name[0], name[1]
		switch {
		case says(text, never):
			return give(labelled, "%s is named %q: its maker says that this test key is not to be trusted", whose, text)
		case says(text, testNames):
			return give(namedTest, "%s is named %q, as test keys are", whose, text)
		}
	}
	return nil
}

// says reports whether a text has one of the phrases, word for word.
func says(text string, phrases []string) bool {
	words := " " + strings.Join(strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}), " ") + " "
	return slices.ContainsFunc(phrases, func(p string) bool { return strings.Contains(words, " "+p+" ") })
}
