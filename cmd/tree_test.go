// Package cmd_test keeps the shape of the tree: which packages there are and
// what each may import. It walks the files itself, since an answer of "go
// list" could come from a cache.
package cmd_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/keyvet/keyvet"

// tree is every package and the keyvet packages that its own code, tests
// apart, may import. A star: device knows nothing, tpm, mqtt and blocklist do
// not know each other, and only device/agent and the commands see several.
var tree = map[string][]string{
	"cmd":                                {"device/check", "device/rotate", "device/agent"}, // tests alone: of the tree, and of what is made of the code
	"cmd/keyvet":                         {"cmd/internal/accept", "cmd/internal/cli", "cmd/internal/format", "cmd/internal/terminal", "cmd/keyvet/internal/bundle", "cmd/keyvet/internal/config", "cmd/keyvet/internal/logs", "cmd/keyvet/internal/quiet", "cmd/keyvet/internal/service", "cmd/keyvet/internal/status", "cmd/keyvet/internal/systemd", "cmd/keyvet/internal/vet", "device", "device/agent", "device/durable", "device/gate", "device/keyfile", "device/rotate", "tpm", "tpm/advisory"},
	"cmd/keyvet/internal/cloud":          {"cmd/keyvet/internal/config", "cmd/keyvet/internal/credential", "cmd/keyvet/internal/vet", "device", "device/agent", "device/durable", "device/gate", "device/rotate", "mqtt", "mqtt/awsiot", "tpm/evidence"},
	"cmd/keyvet/internal/credential":     {"cmd/keyvet/internal/config", "device", "device/durable", "device/gate", "device/identity", "device/keyfile", "device/rotate", "mqtt/awsiot", "tpm"},
	"cmd/keyvet/internal/service":        {"cmd/keyvet/internal/cloud", "cmd/keyvet/internal/config", "cmd/keyvet/internal/credential", "cmd/keyvet/internal/machine", "cmd/keyvet/internal/metrics", "cmd/keyvet/internal/vet", "device", "device/agent", "device/durable", "device/gate", "device/identity", "device/rotate", "tpm", "tpm/advisory"},
	"cmd/keyvet/internal/deflate":        nil,
	"cmd/keyvet/internal/vet":            {"cmd/keyvet/internal/deflate", "cmd/keyvet/internal/config", "cmd/keyvet/internal/credential", "device", "device/check", "device/durable", "device/gate", "device/keyfile", "device/rotate", "tpm", "tpm/advisory", "tpm/evidence", "blocklist", "blocklist/debian"},
	"cmd/keyvet/internal/config":         {"cmd/internal/accept", "device", "device/agent", "device/durable", "device/gate", "device/rotate", "mqtt", "mqtt/awsiot", "tpm", "tpm/attempts"},
	"cmd/keyvet/internal/image":          {"cmd/internal/cli", "cmd/keyvet/internal/config"}, // of the build host
	"cmd/keyvet/internal/systemd":        nil,
	"cmd/keyvet/internal/quiet":          nil,
	"cmd/keyvet/internal/logs":           {"cmd/internal/cli"},
	"cmd/keyvet/internal/status":         {"cmd/internal/terminal", "cmd/keyvet/internal/config", "device", "device/agent", "device/durable", "device/gate", "device/keyfile", "device/rotate"},
	"cmd/keyvet/internal/bundle":         {"cmd/keyvet/internal/config", "cmd/keyvet/internal/status", "device", "device/agent", "device/durable"},
	"cmd/keyvet/internal/metrics":        {"device", "device/durable", "device/gate"},
	"cmd/keyvet/internal/machine":        {"device", "device/durable"},
	"cmd/internal/cli":                   nil,
	"cmd/internal/format":                {"cmd/internal/cli", "device", "device/check"},
	"cmd/internal/accept":                {"device", "device/check", "device/durable"},
	"cmd/internal/cli/clitest":           {"cmd/internal/cli"},
	"cmd/internal/terminal":              {"cmd/internal/cli", "device", "device/check"},
	"cmd/keyvet-blocklist":               {"cmd/internal/cli", "cmd/internal/terminal", "device/durable", "blocklist", "blocklist/debian"},
	"cmd/keyvet-lab":                     {"cmd/internal/cli", "cmd/internal/terminal", "device", "tpm/tpmtest", "mqtt/awsiot", "mqtt/awsiot/localiot"},
	"cmd/keyvet-fleet/internal/bootlog":  {"tpm/evidence"},
	"cmd/keyvet-fleet/internal/baseline": {"device", "device/durable", "tpm/evidence"},
	"cmd/keyvet-fleet":                   {"cmd/internal/accept", "cmd/internal/cli", "cmd/internal/terminal", "cmd/keyvet-fleet/internal/baseline", "cmd/keyvet-fleet/internal/bootlog", "device", "device/check", "device/durable", "device/keyfile", "tpm", "tpm/advisory", "tpm/evidence", "mqtt/awsiot", "blocklist"}, // tpm in its tests: somebody has to make reports
	"device":                             nil,
	"device/agent":                       {"device", "device/check", "device/durable", "device/gate"},
	"device/check":                       {"device", "device/curve", "device/signature"},
	"device/curve":                       nil,
	"device/durable":                     nil,
	"device/durable/durabletest":         {"device/durable"},
	"device/gate":                        {"device", "device/durable"},
	"device/identity":                    {"device/durable"},
	"device/keyfile":                     {"device", "device/curve", "device/signature"},
	"device/rotate":                      {"device", "device/durable", "device/identity", "device/keyfile"},
	"device/signature":                   {"device", "device/curve"},
	"tpm":                                {"device", "device/keyfile", "tpm/advisory", "tpm/attempts", "tpm/ekcert", "tpm/evidence", "tpm/link", "tpm/tpm12"},
	"tpm/advisory":                       {"device"},
	"tpm/attempts":                       {"device/durable"},
	"tpm/ekcert":                         {"device/keyfile"},
	"tpm/evidence":                       {"device", "device/check", "device/keyfile", "tpm/advisory", "tpm/ekcert"},
	"tpm/link":                           {"tpm/tis"},
	"tpm/tis":                            nil,
	"tpm/tpm12":                          nil,
	"tpm/tpmtest":                        nil,
	"mqtt":                               {"device"},
	"mqtt/awsiot":                        {"device", "mqtt"},
	"mqtt/mqtttest":                      nil,
	"mqtt/awsiot/localiot":               nil,
	"blocklist":                          {"device", "device/curve", "blocklist/debian"},
	"blocklist/debian":                   nil,
	"packaging/bill":                     nil,                                                              // of the build host
	"packaging/corpora":                  {"device", "device/check", "device/keyfile", "device/signature"}, // of the build host
	"e2e":                                nil,                                                              // tests alone
}

// testsToo may be imported by any test besides what its package may import.
var testsToo = []string{"cmd/internal/cli/clitest", "tpm/tpmtest", "mqtt/mqtttest", "mqtt/awsiot/localiot", "device/durable", "device/durable/durabletest", "blocklist", "device"}

// testsOf a package may also import these, such as who uses the package.
var testsOf = map[string][]string{"cmd/keyvet": {"mqtt"}, "cmd/keyvet/internal/service": {"cmd/keyvet/internal/quiet"}, "device/signature": {"device/keyfile"}, "mqtt": {"mqtt/awsiot"}, "tpm": {"tpm/tis"}, "tpm/evidence": {"mqtt/awsiot"}}

func TestTree(t *testing.T) {
	files := 0
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); base != ".." && (base[0] == '.' || base == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		files++
		rel, err := filepath.Rel("..", name)
		if err != nil {
			return err
		}
		pkg := path.Dir(filepath.ToSlash(rel))
		allowed, known := tree[pkg]
		if !known {
			t.Errorf("%s: package %s is not in the table of the tree", rel, pkg)
			return nil
		}
		if strings.HasSuffix(name, "_test.go") {
			allowed = slices.Concat([]string{pkg}, allowed, testsToo, testsOf[pkg])
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if !mayImport(allowed, imported) {
				t.Errorf("%s: %s may not import %s", rel, pkg, imported)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 5 {
		t.Fatalf("only %d Go files seen: the test looks in the wrong place", files)
	}
}

// mayImport reports whether imported is from elsewhere or in allowed.
func mayImport(allowed []string, imported string) bool {
	rel, ours := strings.CutPrefix(imported, module+"/")
	return !ours || slices.Contains(allowed, rel)
}

func TestMayImport(t *testing.T) {
	if !mayImport(tree["tpm"], module+"/device") || !mayImport(nil, "fmt") {
		t.Error("a good import is refused")
	}
	if mayImport(tree["tpm"], module+"/mqtt") || mayImport(tree["device"], module+"/device/check") {
		t.Error("a bad import is let through")
	}
}
