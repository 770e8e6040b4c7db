package check

import (
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/keyvet/keyvet/device"
)

// permissionsSamples are samples of the check permissions.
func permissionsSamples(t *testing.T) (all []sample) {
	p256 := issue(t, "someone", nil).key.Public()
	for mode, want := range map[fs.FileMode]device.Status{
		0o600: device.Pass, 0o400: device.Pass, 0o700: device.Pass,
		0o640: device.Warn, 0o620: device.Warn, 0o644: device.Fail, 0o602: device.Fail, 0o604: device.Fail, 0o777: device.Fail,
	} {
		code := map[device.Status]string{device.Warn: "KEYVET_PRIVATE_KEY_GROUP_READABLE", device.Fail: "KEYVET_PRIVATE_KEY_READABLE"}[want]
		k := bare(device.RoleDevice, p256)
		k.Private = &device.PrivateFile{Path: "key.pem", Mode: mode, SPKI: k.SPKI}
		all = append(all, sample{check: "permissions", name: fmt.Sprintf("%04o", mode), key: k, want: want, code: code})
	}
	me := os.Geteuid()
	for name, tt := range map[string]struct {
		place device.Place
		want  device.Status
		code  device.ReasonCode
	}{
		"of this user":                    {device.Place{Owner: me, DirOwner: me, DirMode: fs.ModeDir | 0o755}, device.Pass, ""},
		"of root in another's":            {device.Place{Owner: 0, DirOwner: 4711, DirMode: fs.ModeDir | 0o755}, device.Pass, ""},
		"of the directory's owner":        {device.Place{Owner: 4711, DirOwner: 4711, DirMode: fs.ModeDir | 0o700}, device.Pass, ""},
		"in a directory that is sticky":   {device.Place{Owner: me, DirOwner: 0, DirMode: fs.ModeDir | fs.ModeSticky | 0o777}, device.Pass, ""},
		"in a directory of all":           {device.Place{Owner: me, DirOwner: me, DirMode: fs.ModeDir | 0o777}, device.Fail, "KEYVET_PRIVATE_KEY_REPLACEABLE"},
		"of a stranger":                   {device.Place{Owner: 4711, DirOwner: me, DirMode: fs.ModeDir | 0o755}, device.Warn, "KEYVET_PRIVATE_KEY_FOREIGN"},
		"of a stranger, among all others": {device.Place{Owner: 65534, DirOwner: me, DirMode: fs.ModeDir | 0o777}, device.Fail, "KEYVET_PRIVATE_KEY_REPLACEABLE"},
	} {
		k := bare(device.RoleDevice, p256)
		k.Private = &device.PrivateFile{Path: "key.pem", Mode: 0o600, SPKI: k.SPKI, Place: &tt.place}
		all = append(all, sample{check: "permissions", name: name, key: k, want: tt.want, code: tt.code})
	}
	return all
}
