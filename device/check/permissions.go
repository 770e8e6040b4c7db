package check

import (
	"context"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var (
	privateReadable = device.Reason{
		Code: "KEYVET_PRIVATE_KEY_READABLE", Status: device.Fail, Severity: device.High,
		Means: "Any user of the device can read or write the private key.",
		Do:    "chmod 600 the file, and replace the key if others had access.",
	}
	privateGroupReadable = device.Reason{
		Code: "KEYVET_PRIVATE_KEY_GROUP_READABLE", Status: device.Warn, Severity: device.Medium,
		Means: "The group of the private key file can read or write it.",
		Do:    "chmod 600 the file, unless the group is meant to read it.",
	}
)

var permissions = Check{
	ID:   "permissions",
	Cite: "https://github.com/awslabs/aws-iot-device-client/blob/main/docs/PERMISSIONS.md", // private keys: 600
	Asks: "Who can read the private key file?",
	Applies: func(k device.Key) bool {
		return k.Private != nil && k.Private.Path != "-" && k.Private.Mode.IsRegular() // a key in the TPM has none
	},
	Reasons: []device.Reason{privateReadable, privateGroupReadable},
	Run:     runPermissions,
}

func runPermissions(_ context.Context, k device.Key, _ *Env) []device.Finding {
	mode := k.Private.Mode.Perm()
	switch {
	case mode&0o006 != 0:
		return give(privateReadable, "any user can read or write the private key %s (mode %04o): chmod 600 it, and replace the key if others had access", k.Private.Path, mode)
	case mode&0o060 != 0:
		return give(privateGroupReadable, "its group can read or write the private key %s (mode %04o)", k.Private.Path, mode)
	}
	return passed("only its owner can read the private key (mode %04o)", mode)
}
