package check

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
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
	const sticky = fs.ModeSticky | 0o777
	for name, tt := range map[string]struct {
		mode  fs.FileMode
		owner int
		dirs  []device.Dir // without paths and the root
		want  device.Status
		code  device.ReasonCode
	}{
		"of this user":                       {0o600, me, []device.Dir{{Owner: me, Mode: 0o755}}, device.Pass, ""},
		"of root in another's":               {0o600, 0, []device.Dir{{Owner: 4711, Mode: 0o755}}, device.Pass, ""},
		"of the directory's owner":           {0o600, 4711, []device.Dir{{Owner: 4711, Mode: 0o700}}, device.Pass, ""},
		"in a directory that is sticky":      {0o600, me, []device.Dir{{Owner: 0, Mode: sticky}}, device.Pass, ""},
		"in a directory of all":              {0o600, me, []device.Dir{{Owner: me, Mode: 0o777}}, device.Fail, "KEYVET_PRIVATE_KEY_REPLACEABLE"},
		"in a directory that all fill":       {0o600, me, []device.Dir{{Owner: me, Mode: 0o733}}, device.Fail, "KEYVET_PRIVATE_KEY_REPLACEABLE"},
		"in one that all list":               {0o600, me, []device.Dir{{Owner: me, Mode: 0o776}}, device.Pass, ""},
		"of all, above":                      {0o600, me, []device.Dir{{Owner: me, Mode: 0o755}, {Owner: me, Mode: 0o777}}, device.Fail, "KEYVET_PRIVATE_KEY_REPLACEABLE"},
		"of all, but out of reach":           {0o600, me, []device.Dir{{Owner: me, Mode: 0o777}, {Owner: me, Mode: 0o700}}, device.Pass, ""},
		"of all, and a shut one in it":       {0o600, me, []device.Dir{{Owner: me, Mode: 0o700}, {Owner: me, Mode: 0o777}}, device.Fail, "KEYVET_PRIVATE_KEY_REPLACEABLE"},
		"of a stranger":                      {0o600, 4711, []device.Dir{{Owner: me, Mode: 0o755}}, device.Warn, "KEYVET_PRIVATE_KEY_FOREIGN"},
		"of a stranger, among all others":    {0o600, 65534, []device.Dir{{Owner: me, Mode: 0o777}}, device.Fail, "KEYVET_PRIVATE_KEY_REPLACEABLE"},
		"readable in an open directory":      {0o644, me, []device.Dir{{Owner: me, Mode: 0o755}}, device.Fail, "KEYVET_PRIVATE_KEY_READABLE"},
		"readable in one without a listing":  {0o644, me, []device.Dir{{Owner: me, Mode: 0o711}}, device.Fail, "KEYVET_PRIVATE_KEY_READABLE"},
		"readable in a shut directory":       {0o644, me, []device.Dir{{Owner: me, Mode: 0o700}}, device.Pass, ""},
		"readable under a shut directory":    {0o644, me, []device.Dir{{Owner: me, Mode: 0o755}, {Owner: me, Mode: 0o755}, {Owner: me, Mode: 0o700}}, device.Pass, ""},
		"readable in one that can be listed": {0o644, me, []device.Dir{{Owner: me, Mode: 0o744}}, device.Pass, ""},
		"writable in a shut directory":       {0o666, me, []device.Dir{{Owner: me, Mode: 0o700}}, device.Pass, ""},
		"readable in a group's":              {0o644, me, []device.Dir{{Owner: me, Mode: 0o750}}, device.Warn, "KEYVET_PRIVATE_KEY_GROUP_READABLE"},
		"readable under a group's":           {0o604, me, []device.Dir{{Owner: me, Mode: 0o755}, {Owner: me, Mode: 0o710}}, device.Warn, "KEYVET_PRIVATE_KEY_GROUP_READABLE"},
		"readable by a group":                {0o640, me, []device.Dir{{Owner: me, Mode: 0o755}}, device.Warn, "KEYVET_PRIVATE_KEY_GROUP_READABLE"},
		"readable by a group, in its own":    {0o640, me, []device.Dir{{Owner: me, Mode: 0o750}}, device.Warn, "KEYVET_PRIVATE_KEY_GROUP_READABLE"},
		"by a group, in a shut directory":    {0o660, me, []device.Dir{{Owner: me, Mode: 0o700}}, device.Pass, ""},
	} {
		place := &device.Place{Owner: tt.owner, Dirs: append(tt.dirs, device.Dir{Path: "/", Mode: 0o755})}
		k := bare(device.RoleDevice, p256)
		k.Private = &device.PrivateFile{Path: "key.pem", Mode: tt.mode, SPKI: k.SPKI, Place: place}
		all = append(all, sample{check: "permissions", name: name, key: k, want: tt.want, code: tt.code})
	}
	return all
}

func TestPermissionsSay(t *testing.T) {
	me := os.Geteuid()
	for says, dir := range map[string]fs.FileMode{
		"but only the owner of /keys (mode 0700) can get there":  0o700,
		"the group of the directory /keys (mode 0710) can read":  0o710,
		"any user can read or write the private key /keys/k.pem": 0o711,
	} {
		k := device.Key{Private: &device.PrivateFile{Path: "/keys/k.pem", Mode: 0o604, Place: &device.Place{Owner: me, Dirs: []device.Dir{{Path: "/keys", Owner: me, Mode: dir}}}}}
		if found := permissions.Run(t.Context(), k, &Env{}); len(found) != 1 || !strings.Contains(found[0].Message, says) {
			t.Errorf("%04o: %+v, want %q", dir, found, says)
		}
	}
}
