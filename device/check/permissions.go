package check

import (
	"context"
	"io/fs"
	"os"

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
	privateReplaceable = device.Reason{
		Code: "KEYVET_PRIVATE_KEY_REPLACEABLE", Status: device.Fail, Severity: device.High,
		Means: "Any user of the device can put another file in the place of the private key, since its directory can be written by all.",
		Do:    "chmod o-w the directory, and look whether the key is the one that it should be.",
	}
	privateForeign = device.Reason{
		Code: "KEYVET_PRIVATE_KEY_FOREIGN", Status: device.Warn, Severity: device.Medium,
		Means: "The private key file belongs to another user than its directory, and to neither root nor the user of keyvet. That user can read and change it.",
		Do:    "chown the file to the user that is meant to have the key.",
	}
)

var permissions = Check{
	ID:   "permissions",
	Cite: "https://github.com/awslabs/aws-iot-device-client/blob/main/docs/PERMISSIONS.md", // private keys: 600
	Asks: "Who can read the private key file?",
	Applies: func(k device.Key) bool {
		return k.Private != nil && k.Private.Path != "-" && k.Private.Mode.IsRegular() // a key in the TPM has none
	},
	Reasons: []device.Reason{privateReadable, privateGroupReadable, privateReplaceable, privateForeign},
	Run:     runPermissions,
}

func runPermissions(_ context.Context, k device.Key, _ *Env) []device.Finding {
	mode, path := k.Private.Mode.Perm(), k.Private.Path
	var found []device.Finding
	switch {
	case mode&0o006 != 0:
		found = append(found, give(privateReadable, "any user can read or write the private key %s (mode %04o): chmod 600 it, and replace the key if others had access", path, mode)...)
	case mode&0o060 != 0:
		found = append(found, give(privateGroupReadable, "its group can read or write the private key %s (mode %04o)", path, mode)...)
	}
	p := k.Private.Place
	if p == nil {
		if found == nil {
			found = passed("no other user can read the private key by its mode (%04o); who owns it is not known", mode)
		}
		return found
	}
	if p.DirMode.Perm()&0o002 != 0 && p.DirMode&fs.ModeSticky == 0 {
		found = append(found, give(privateReplaceable, "any user can replace the private key %s, since its directory can be written by all (mode %04o)", path, p.DirMode.Perm())...)
	}
	if p.Owner != 0 && p.Owner != os.Geteuid() && p.Owner != p.DirOwner {
		found = append(found, give(privateForeign, "the private key %s belongs to the user with the number %d, who can read and change it", path, p.Owner)...)
	}
	if found == nil {
		found = passed("only root and the user with the number %d can read the private key (mode %04o)", p.Owner, mode)
	}
	return found
}
