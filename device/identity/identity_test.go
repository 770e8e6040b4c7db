package identity_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/durable/durabletest"
	"github.com/keyvet/keyvet/device/identity"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestStore goes through a life of credentials on each file system.
func TestStore(t *testing.T) {
	for name, s := range map[string]*identity.Store{
		"OS":     {Dir: filepath.Join(t.TempDir(), "state")},
		"memory": {Dir: "/state", Disk: durable.Disk{FS: durabletest.New()}},
	} {
		t.Run(name, func(t *testing.T) {
			expect := func(current string, ids ...string) {
				t.Helper()
				got, err := s.Current()
				if got != current || (current == "") != errors.Is(err, identity.ErrNone) {
					t.Errorf("current is %q, %v; want %q", got, err, current)
				}
				all, err := s.List()
				if err != nil || !slices.Equal(all, ids) {
					t.Errorf("list: %v, %v; want %v", all, err, ids)
				}
				if current == "" {
					return
				}
				for _, id := range []string{"", current} {
					chain, err1 := s.Certificate(id)
					key, err2 := s.Key(id)
					if string(chain) != "chain of "+current || string(key) != "key of "+current {
						t.Errorf("%q, %q of %q: %v, %v", chain, key, id, err1, err2)
					}
				}
			}
			put := func(id string) error { return s.Put(id, []byte("chain of "+id), []byte("key of "+id)) }

			expect("") // before Recover made anything
			must(t, s.Recover())
			expect("")
			must(t, put("a"))
			must(t, s.PutKey("b", []byte("key of b")))
			expect("", "a", "b")
			if err := s.Use("b"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("half a credential is used: %v", err)
			}
			must(t, s.Use("a"))
			must(t, s.Use("a"))
			must(t, s.PutCertificate("b", []byte("chain of b")))
			must(t, s.Recover())
			expect("a", "a", "b")
			must(t, s.Use("b"))
			expect("b", "a", "b")
			if err := s.Remove("b"); err == nil {
				t.Error("the one in use was removed")
			}
			if err := put("b"); err == nil {
				t.Error("the one in use was written to")
			}
			must(t, s.Remove("a"))
			must(t, s.Remove("a"))
			expect("b", "b")
			must(t, s.UseNone())
			must(t, s.UseNone())
			expect("", "b")
			for _, id := range []string{"", ".", "..", "a/b", "A", ".removed-a", strings.Repeat("a", 65)} {
				if put(id) == nil || s.Use(id) == nil || s.Remove(id) == nil {
					t.Errorf("%q was taken for an id", id)
				}
			}
			if s.PutKey("c", nil) == nil || s.PutKey("c", make([]byte, 1<<20)) == nil {
				t.Error("an empty or a huge key was taken")
			}
		})
	}
}

func TestFirst(t *testing.T) {
	s := &identity.Store{Dir: t.TempDir()}
	inPlace := func() {
		must(t, durable.Dir(filepath.Join(s.Dir, "identity"), 0o700))
		must(t, durable.WriteFile(filepath.Join(s.Dir, "identity/certificate.pem"), []byte("chain"), 0o600))
		must(t, durable.WriteFile(filepath.Join(s.Dir, "identity/key.pem"), []byte("key"), 0o600))
	}
	expect := func(want string) {
		t.Helper()
		id, err := s.Current()
		key, keyErr := s.Key(id)
		if id != want || len(key) == 0 {
			t.Errorf("current is %q, %v, with the key %q, %v", id, err, key, keyErr)
		}
	}
	inPlace()
	expect(identity.First)
	must(t, s.Recover())
	expect(identity.First)
	if s.UseNone() == nil || s.Remove(identity.First) == nil {
		t.Error("the first credential was taken out of use in its place")
	}
	must(t, s.Put("a", []byte("x"), []byte("y")))
	must(t, s.Use("a"))
	expect("a")
	must(t, s.Use(identity.First))
	expect(identity.First)
	must(t, s.Use("a"))
	// Somebody puts another one in its place.
	must(t, durable.Remove(filepath.Join(s.Dir, "identity")))
	inPlace()
	expect(identity.First)
	must(t, s.Use("a"))
	expect("a")
	must(t, s.Remove(identity.First))
	if ids, _ := s.List(); !slices.Equal(ids, []string{"a"}) {
		t.Errorf("left: %v", ids)
	}
}

// TestFirstWithoutKey has the key of the first credential elsewhere.
func TestFirstWithoutKey(t *testing.T) {
	s := &identity.Store{Dir: t.TempDir()}
	must(t, durable.Dir(filepath.Join(s.Dir, "identity"), 0o700))
	must(t, durable.WriteFile(filepath.Join(s.Dir, "identity/certificate.pem"), []byte("chain"), 0o600))
	must(t, s.Recover())
	must(t, s.Put("a", []byte("x"), []byte("y")))
	must(t, s.Use("a"))
	must(t, s.Use(identity.First))
	if chain, err := s.Certificate(""); string(chain) != "chain" {
		t.Errorf("%q, %v", chain, err)
	}
}

func TestStrangeLink(t *testing.T) {
	for _, target := range []string{"/etc", "credentials/../x", "credentials", "credentials/a/b", "credentials/A"} {
		s := &identity.Store{Dir: t.TempDir()}
		must(t, s.Recover())
		must(t, s.Put("a", []byte("x"), []byte("y")))
		must(t, s.Disk.Symlink(target, filepath.Join(s.Dir, "identity")))
		if id, err := s.Current(); err == nil || errors.Is(err, identity.ErrNone) {
			t.Errorf("a link to %s: %q, %v", target, id, err)
		}
		if s.Use("a") == nil || s.Remove("a") == nil || s.PutKey("a", []byte("z")) == nil {
			t.Errorf("a link to %s: the store was changed", target)
		}
	}
}

// TestCut cuts power at every point of every change, and of the recovery after
// it, and looks at every disk that this may leave.
func TestCut(t *testing.T) {
	for _, tt := range []struct {
		name    string
		inPlace bool   // a directory called identity is there
		use     string // before
		change  func(*identity.Store) error
		current []string // what may be in use after a cut
		end     string   // what is in use after the change
	}{
		{"use the first of all", false, "", func(s *identity.Store) error { return s.Use("a") }, []string{"", "a"}, "a"},
		{"use another", false, "a", func(s *identity.Store) error { return s.Use("b") }, []string{"a", "b"}, "b"},
		{"use after one in its place", true, "", func(s *identity.Store) error { return s.Use("a") }, []string{"first", "a"}, "a"},
		{"use the first again", true, "a", func(s *identity.Store) error { return s.Use("first") }, []string{"first", "a"}, "first"},
		{"use none", false, "a", func(s *identity.Store) error { return s.UseNone() }, []string{"a", ""}, ""},
		{"remove", false, "a", func(s *identity.Store) error { return s.Remove("b") }, []string{"a"}, "a"},
		{"remove the first", true, "a", func(s *identity.Store) error { return s.Remove("first") }, []string{"a"}, "a"},
		{"put", false, "a", func(s *identity.Store) error { return s.Put("c", []byte("cert c"), []byte("key c")) }, []string{"a"}, "a"},
		{"put again", false, "a", func(s *identity.Store) error { return s.Put("b", []byte("cert b2"), []byte("key b2")) }, []string{"a"}, "a"},
		{"recover", true, "", func(s *identity.Store) error { return s.Recover() }, []string{"first"}, "first"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := func() *durabletest.Disk {
				disk := durabletest.New()
				s := &identity.Store{Dir: "/state", Disk: durable.Disk{FS: disk}}
				must(t, s.Recover())
				must(t, s.Put("a", []byte("cert a"), []byte("key a")))
				must(t, s.Put("b", []byte("cert b"), []byte("key b")))
				if tt.inPlace {
					must(t, s.Disk.Dir("/state/identity", 0o700))
					must(t, s.Disk.WriteFile("/state/identity/certificate.pem", []byte("cert first"), 0o600))
					must(t, s.Disk.WriteFile("/state/identity/key.pem", []byte("key first"), 0o600))
				}
				if tt.use != "" {
					must(t, s.Use(tt.use))
				}
				return disk
			}
			points, disks := 0, 0
			for cutAt := 1; ; cutAt++ {
				disk, power := before(), &durabletest.Power{CutAt: cutAt}
				if !power.Run(func() { must(t, tt.change(&identity.Store{Dir: "/state", Disk: durable.Disk{FS: power.FS(disk)}})) }) {
					for _, left := range disk.Cut() { // what is done stays done
						expectOne(t, left, []string{tt.end})
					}
					break
				}
				points++
				for _, left := range disk.Cut() {
					for again := 1; ; again++ { // and in the recovery
						power := &durabletest.Power{CutAt: again}
						second := left.Cut()[0]
						wasCut := power.Run(func() {
							must(t, (&identity.Store{Dir: "/state", Disk: durable.Disk{FS: power.FS(second)}}).Recover())
						})
						for _, left := range second.Cut() {
							disks++
							s := &identity.Store{Dir: "/state", Disk: durable.Disk{FS: left}}
							must(t, s.Recover())
							expectOne(t, left, tt.current)
							if !strings.HasPrefix(tt.name, "put") {
								expectWhole(t, s)
							}
							must(t, tt.change(s))
							expectOne(t, left, []string{tt.end})
						}
						if !wasCut {
							break
						}
					}
				}
			}
			if points < 4 {
				t.Errorf("only %d points", points)
			}
			t.Logf("%d points, %d disks", points, disks)
		})
	}
}

// expectOne wants one of the given to be in use, whole, and nothing half done.
func expectOne(t *testing.T, disk *durabletest.Disk, want []string) {
	t.Helper()
	s := &identity.Store{Dir: "/state", Disk: durable.Disk{FS: disk}}
	id, err := s.Current()
	if err != nil && !errors.Is(err, identity.ErrNone) {
		t.Fatal(err)
	}
	if !slices.Contains(want, id) {
		t.Fatalf("%q is in use, want one of %q, on\n%s", id, want, disk)
	}
	if id != "" {
		chain, err1 := s.Certificate("")
		key, err2 := s.Key("")
		if string(chain) != "cert "+id || string(key) != "key "+id {
			t.Fatalf("%q and %q are in use (%v, %v), on\n%s", chain, key, err1, err2, disk)
		}
	}
	for _, half := range []string{"keyvet-tmp", "removed", "identity.new", `""`, `\x00`} {
		if strings.Contains(disk.String(), half) {
			t.Fatalf("%s is left on\n%s", half, disk)
		}
	}
}

// expectWhole wants every credential to have both of its files.
func expectWhole(t *testing.T, s *identity.Store) {
	t.Helper()
	ids, err := s.List()
	must(t, err)
	for _, id := range ids {
		_, err1 := s.Certificate(id)
		_, err2 := s.Key(id)
		must(t, errors.Join(err1, err2))
	}
}
