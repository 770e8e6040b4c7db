package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
)

// CredentialFiles returns the paths of the device's certificate and key: those
// that the configuration names, until keyvet has made the device another
// credential, which is behind a symbolic link in the state directory.
func (c *Config) CredentialFiles() (certificate, key string) {
	made := filepath.Join(c.StateDir, "identity")
	if info, err := os.Lstat(made); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return filepath.Join(made, "certificate.pem"), filepath.Join(made, "key.pem")
	}
	return c.ConfiguredFiles()
}

// ConfiguredFiles returns the paths of the credential that the device was given.
func (c *Config) ConfiguredFiles() (certificate, key string) {
	certificate, key = c.Identity.Certificate, c.Identity.Key
	if certificate == "" {
		certificate = filepath.Join(c.StateDir, "identity", "certificate.pem")
	}
	if key == "" {
		key = filepath.Join(c.StateDir, "identity", "key.pem")
	}
	return certificate, key
}

// AKPath returns the path of the attestation key, which is kept once it has signed.
func (c *Config) AKPath() string { return filepath.Join(c.StateDir, "ak.pem") }

// KeptPath returns the path of what the TPM has shown of its keys.
func (c *Config) KeptPath() string { return filepath.Join(c.StateDir, "tpm-keys.json") }

// RequestPath returns the path of the file by which `keyvet rotate` asks the service that runs.
func (c *Config) RequestPath() string { return filepath.Join(c.StateDir, "rotate.request") }

// RunDirOf returns the run directory of the configuration at path, in which
// there may be a mistake, as far as it can be found out.
func RunDirOf(path string) string {
	dir := Default().RunDir
	sources, _ := read(path)
	for _, s := range sources {
		for line := range strings.Lines(s.text) {
			var c struct {
				RunDir string `toml:"run_dir"`
			}
			if _, err := toml.Decode(line, &c); err == nil && directory(c.RunDir) == nil {
				dir = filepath.Clean(c.RunDir)
				break
			}
		}
	}
	return dir
}
