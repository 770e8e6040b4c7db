package check

import (
	"context"

	"github.com/keyvet/keyvet/device"
)

var permissions = Check{
	ID:   "permissions",
	Cite: "https://github.com/awslabs/aws-iot-device-client/blob/main/docs/PERMISSIONS.md", // private keys: 600
	Applies: func(k device.Key) bool {
		return k.Private != nil && k.Private.Path != "-" && k.Private.Mode.IsRegular() // a key in the TPM has none
	},
	Run: runPermissions,
}

func runPermissions(_ context.Context, k device.Key, _ *Env) []device.Finding {
	mode := k.Private.Mode.Perm()
	switch {
	case mode&0o006 != 0:
		return failed(device.High, "KEYVET_PRIVATE_KEY_READABLE", "any user can read or write the private key %s (mode %04o): chmod 600 it, and replace the key if others had access", k.Private.Path, mode)
	case mode&0o060 != 0:
		return warned(device.Medium, "KEYVET_PRIVATE_KEY_GROUP_READABLE", "its group can read or write the private key %s (mode %04o)", k.Private.Path, mode)
	}
	return passed("only its owner can read the private key (mode %04o)", mode)
}
