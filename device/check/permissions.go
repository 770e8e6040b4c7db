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
		Means: "Any user of the device can read or write the private key: the file lets them, and so does every directory above it.",
		Do:    "`chmod 600 FILE`, and replace the key if others had access.",
	}
	privateGroupReadable = device.Reason{
		Code: "KEYVET_PRIVATE_KEY_GROUP_READABLE", Status: device.Warn, Severity: device.Medium,
		Means: "A group of users can read or write the private key file.",
		Do:    "`chmod 600 FILE`, unless the group is meant to read it.",
	}
	privateReplaceable = device.Reason{
		Code: "KEYVET_PRIVATE_KEY_REPLACEABLE", Status: device.Fail, Severity: device.High,
		Means: "Any user of the device can put another file in the place of the private key, since a directory above it can be written by all.",
		Do:    "`chmod o-w DIR`, and look whether the key is the one that it should be.",
	}
	privateForeign = device.Reason{
		Code: "KEYVET_PRIVATE_KEY_FOREIGN", Status: device.Warn, Severity: device.Medium,
		Means: "The private key file belongs to another user than its directory, and to neither root nor the user of keyvet. That user can read and change it.",
		Do:    "`chown root FILE`, or give it to the user that is meant to have the key.",
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

// runPermissions looks at what the modes of the file and of the directories above
// it let others do. Access control lists are not looked at.
func runPermissions(_ context.Context, k device.Key, _ *Env) []device.Finding {
	mode, path, p := k.Private.Mode.Perm(), k.Private.Path, k.Private.Place
	found := readable(mode, path, p)
	if p == nil {
		if found == nil {
			found = passed("no other user can read the private key by its mode (%04o); who owns it is not known", mode)
		}
		return found
	}
	if dir := writable(p.Dirs); dir != nil {
		found = append(found, give(privateReplaceable, "any user can replace the private key %s, since the directory %s can be written by all (mode %04o)", path, dir.Path, dir.Mode.Perm())...)
	}
	if p.Owner != 0 && p.Owner != os.Geteuid() && len(p.Dirs) > 0 && p.Owner != p.Dirs[0].Owner {
		found = append(found, give(privateForeign, "the private key %s belongs to the user with the number %d, who can read and change it", path, p.Owner)...)
	}
	if found != nil {
		return found
	}
	if shut := closed(p.Dirs, 0o011); shut != nil && mode&0o066 != 0 {
		return passed("the private key can be read by its mode (%04o), but only the owner of %s (mode %04o) can get there", mode, shut.Path, shut.Mode.Perm())
	}
	return passed("only root and the user with the number %d can read the private key (mode %04o)", p.Owner, mode)
}

// readable is about who else can read or write the file.
func readable(mode fs.FileMode, path string, p *device.Place) []device.Finding {
	var dirs []device.Dir // what is not known lets everybody through
	if p != nil {
		dirs = p.Dirs
	}
	notAll := closed(dirs, 0o001)
	switch {
	case mode&0o066 == 0, closed(dirs, 0o011) != nil:
		return nil
	case mode&0o006 != 0 && notAll == nil:
		return give(privateReadable, "any user can read or write the private key %s (mode %04o)", path, mode)
	case mode&0o006 != 0:
		return give(privateGroupReadable, "the group of the directory %s (mode %04o) can read or write the private key %s (mode %04o)", notAll.Path, notAll.Mode.Perm(), path, mode)
	}
	return give(privateGroupReadable, "its group can read or write the private key %s (mode %04o)", path, mode)
}

// closed returns the nearest directory that lets through nobody of these bits for
// execution (others 0o001, the group 0o010); nil if there is none.
func closed(dirs []device.Dir, bits fs.FileMode) *device.Dir {
	for i, d := range dirs {
		if d.Mode.Perm()&bits == 0 {
			return &dirs[i]
		}
	}
	return nil
}

// writable returns the nearest directory in which any user can put another entry
// in place of the one that leads to the file: all can write it and get there, and
// it is not sticky.
func writable(dirs []device.Dir) *device.Dir {
	for i, d := range dirs {
		if d.Mode.Perm()&0o003 == 0o003 && d.Mode&fs.ModeSticky == 0 && closed(dirs[i:], 0o001) == nil {
			return &dirs[i]
		}
	}
	return nil
}
