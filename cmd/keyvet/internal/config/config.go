// Package config reads keyvet.toml: what it may say, the values of keys that it
// leaves out, and what follows from them for the rest of the program.
package config

import (
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/mqtt"
)

// Config is keyvet.toml. The comments of the fields are its documentation:
// docs/configuration.md and keyvet.toml(5) are made from them.
type Config struct {
	files []string

	// The directory of keyvet's state: credentials, the journal of rotations, the last
	// verdict, and the spool of reports that wait. keyvet creates it with mode 0700. The
	// path is absolute; it has no spaces, and nothing that has a meaning for systemd.
	StateDir string `toml:"state_dir"`
	// The directory that shows whether the gate is open. While it is open, the directory
	// holds the mark `trusted`, and `identity/certificate.pem` and `identity/key.pem` for
	// other programs, which may be members of the agent's group. While it is shut, the
	// directory holds the file `shut`.
	RunDir string `toml:"run_dir"`
	// The device in AWS IoT.
	Thing Thing `toml:"thing"`
	// The device's TPM.
	TPM TPM `toml:"tpm"`
	// What the TPM signs in a report.
	Evidence Evidence `toml:"evidence"`
	// The credential that the device was given.
	Identity Identity `toml:"identity"`
	// What is checked, and with which data.
	Check Check `toml:"check"`
	// The connection to AWS IoT.
	MQTT MQTT `toml:"mqtt"`
	// When other programs may rely on the device's keys.
	Gate Gate `toml:"gate"`
	// First contact: a device that has only a claim gets its first certificate.
	Provision Provision `toml:"provision"`
	// Replacing the device's key and certificate.
	Rotate Rotate `toml:"rotate"`
	// Checks that the device starts without being asked.
	Schedule Schedule `toml:"schedule"`
	// Checks that the device's shadow asks for.
	Shadow Shadow `toml:"shadow"`
	// Figures for a monitoring system on the device.
	Metrics Metrics `toml:"metrics"`
	// AWS IoT Device Defender.
	Defender Defender `toml:"defender"`
	// The log.
	Log Log `toml:"log"`
}

// Thing is the table [thing].
type Thing struct {
	// The name of the thing; `keyvet run` needs it. keyvet takes the name from elsewhere if
	// this is `"cert:CN"` (the common name of the device's certificate),
	// `"file:/etc/hostname"` (the text in that file), `"ek:sha256"` or `"template"`.
	// `"ek:sha256"` is the SHA-256 of the SPKI of one endorsement key, in hex: the RSA-2048
	// key of every TPM that lists RSA, else the P-256 key. While that key cannot be read,
	// there is no name, and nothing is provisioned. `"template"` is the name that the
	// provisioning template gives the thing. Both names are kept in `state_dir/thing` once
	// AWS IoT has accepted the device by them; keyvet warns of another TPM.
	Name string `toml:"name"`
}

// TPM is the table [tpm].
type TPM struct {
	// The address of the TPM: a device, such as `/dev/tpmrm0`; `unix:PATH` or
	// `tcp:HOST:PORT` for raw TPM commands over a socket;
	// `spi:/dev/spidevB.C[?speed=10MHz]` or `i2c:/dev/i2c-N[?addr=0x2e]` for a chip
	// without a kernel driver. `""` means that this device has no TPM.
	Address string `toml:"address"`
	// How long a command may take. The creation of a key has a limit of its own.
	Timeout Duration `toml:"timeout"`
	// How long the first check of `keyvet run` and `keyvet rotate` waits for a TPM that is
	// not there yet, or that nobody has started: a driver that is loaded late, a firmware
	// TPM that needs a program of its own. After that the check is undecided, and keyvet
	// looks for the TPM once a minute. `keyvet check` does not wait. At most `"10m"`.
	Wait Duration `toml:"wait"`
	// The persistent handle of the attestation key, in the range of the owner, such as
	// `"0x81010020"`. If there is no key at the handle, `keyvet run` puts one there; it
	// accepts no other key in its place. Empty means that the attestation key is kept in
	// `state_dir/ak.pem`, and is replaced when the TPM can no longer load it, because it
	// is another TPM or was cleared.
	AK string `toml:"ak"`
	// A file with the password of the owner hierarchy, on a TPM where it has one; empty
	// means that it has none. keyvet uses it to read the storage key and NV indices, and to
	// use keys that were made under the owner hierarchy. See "Passwords of the TPM" in
	// docs/operations.md for what the file holds and who may read it.
	OwnerAuthFile string `toml:"owner_auth_file"`
	// A file with the password of the endorsement hierarchy, likewise. keyvet uses it to
	// read the endorsement keys, to make the attestation key and to answer challenges.
	EndorsementAuthFile string `toml:"endorsement_auth_file"`
}

// Evidence is the table [evidence].
type Evidence struct {
	// The PCRs that the evidence of a report quotes, and their bank: `sha256`, `sha384` or
	// `sha512`. `""` means no PCRs. The report says so if the TPM does not have the bank.
	PCRs PCRs `toml:"pcrs"`
	// Whether the report of a boot carries the log of what the firmware measured, by
	// which the fleet can say what the PCRs mean: Secure Boot, its keys, the boot loader.
	// The log is left out where the report would be too large, and the report says so.
	// Only root can read it: under systemd 253 and later the unit hands it over.
	BootLog bool `toml:"boot_log"`
	// Whether reports must have evidence. If so, on a device with a TPM, a report of
	// `keyvet run` without evidence is undecided and does not open the gate, and a check
	// of a TPM that does not make an attestation key is undecided, unless its endorsement
	// hierarchy has a password (`tpm.endorsement_auth_file`). `false` accepts a TPM that
	// cannot sign: a TPM 1.2 (also one whose owner keeps others from reading its
	// endorsement key), a TPM that makes no attestation key of P-256 or RSA-2048, a TPM
	// with a password that keyvet does not have. It does not accept a TPM that no longer
	// signs but did before:
	// `state_dir/ak.pem` exists, `tpm.ak` is set, or the last report was signed.
	Required bool `toml:"required"`
}

// Identity is the table [identity].
type Identity struct {
	// The certificate that the device was given, in PEM, followed by its chain. Empty
	// means `state_dir/identity/certificate.pem`. A credential that keyvet made takes
	// precedence over it: see "Which credential is in use".
	Certificate string `toml:"certificate"`
	// The private key of the certificate: a PEM file, a file with a TSS2 PRIVATE KEY, or a
	// persistent handle such as `"tpm:0x81000100"`. Empty means
	// `state_dir/identity/key.pem`.
	Key string `toml:"key"`
	// Files of CA certificates. The device's chain must lead to one of them.
	CA []string `toml:"ca"`
}

// Check is the table [check].
type Check struct {
	// Further files and directories to check. Wildcards are allowed; one that matches no file is
	// a gap. Directories are searched as by `keyvet check DIR`.
	Files []string `toml:"files"`
	// keyvet warns of a certificate this long before it expires, and of a short-lived one
	// when a tenth of its life is left.
	ExpiryWarning Duration `toml:"expiry_warning"`
	// Further lists of weak and compromised keys, besides the built-in one and those in
	// `/usr/share/keyvet/*.kvf`.
	Blocklists []string `toml:"blocklists"`
	// Further files of advisories, in the format of `tpm/advisory/advisories.json`.
	Advisories []string `toml:"advisories"`
	// A directory of root certificates in PEM. Certificates of endorsement keys must lead
	// to one of them.
	EKRoots string `toml:"ek_roots"`
	// Revocation lists, in PEM or DER.
	CRLs []string `toml:"crls"`
	// Findings that you accept, each a table `[[check.accept]]`: they count as warnings. See
	// "Accepting a finding".
	Accept []device.Acceptance `toml:"accept"`
	// keyvet warns of a certificate of the device that is older than this, such as
	// `"8760h"`, a year: AWS IoT Device Defender's own limit unless set otherwise. `""`
	// means that the age is not checked.
	MaxAge Duration `toml:"max_age"`
}

// MQTT is the table [mqtt].
type MQTT struct {
	// Endpoints as `HOST:PORT`, in order of preference; `keyvet run` needs one. Port 443
	// uses ALPN `x-amzn-mqtt-ca`.
	Endpoints []string `toml:"endpoints"`
	// A file of CA certificates for the endpoints. Empty means the CA certificates of the
	// system.
	CAFile string `toml:"ca_file"`
	// Pins, of which one must fit a certificate in the verified chain of the endpoint. A
	// pin is `"amazon"`, which means Amazon's five roots, or the base64 SHA-256 of a
	// certificate's SPKI. If this key is not set, the pins are `["amazon"]` for endpoints
	// in `amazonaws.com` and `amazonaws.com.cn`, and none for others. `[]` pins nothing. A
	// pin of the server's own certificate works only until that certificate is renewed, so
	// keyvet warns of it at each connection.
	Pins []string `toml:"pins"`
	// The MQTT client id. Empty means the name of the thing.
	ClientID string `toml:"client_id"`
	// The interval of keep-alive packets, from 30 seconds to 20 minutes.
	KeepAlive Duration `toml:"keepalive"`
	// How long a network step may take on a fast link: reaching the endpoint, the TLS
	// handshake, each answer. keyvet allows more for large messages, for round trips that
	// it has measured to be long, and after steps that ran out of time.
	Timeout Duration `toml:"timeout"`
	// The longest pause between two tries to connect. A pause is a random part of this, so
	// that a large fleet does not come back at once: a small fleet may set it lower. With
	// the default, AWS IoT's own refusals lead to pauses of up to an hour after ten of them.
	ReconnectMax Duration `toml:"reconnect_max"`
	// An HTTP proxy, such as `"http://user:password@host:3128"`, or `https://` for TLS to
	// the proxy itself. keyvet asks it by CONNECT, with Basic authentication, for the
	// endpoint, whose name the proxy looks up. Other characters than letters and digits in
	// user and password are written as `%XX`. Empty means what the environment variables
	// `HTTPS_PROXY` and `NO_PROXY` say (docs/systemd.md, "A proxy"). With a password here
	// the file should belong to `root:keyvet` and have mode 0640.
	Proxy mqtt.Proxy `toml:"proxy"`
	// The topic of reports. `{thing}` stands for the name of the thing.
	ReportTopic string `toml:"report_topic"`
}

// Gate is the table [gate].
type Gate struct {
	// When the gate opens: `acknowledged` means when AWS IoT has acknowledged a report
	// that passes, `local` means when a check passes, without waiting for AWS IoT.
	Open gate.Policy `toml:"open"`
}

// Provision is the table [provision].
type Provision struct {
	// The certificate of the claim, in PEM. A device without a certificate uses the claim
	// to get its first one. Empty means that there is no claim.
	ClaimCertificate string `toml:"claim_certificate"`
	// The private key of the claim, in PEM. It is set together with
	// `provision.claim_certificate`.
	ClaimKey string `toml:"claim_key"`
	// The fleet provisioning template that creates the thing. It is set together with
	// `provision.claim_certificate`.
	Template string `toml:"template"`
	// The parameters of the template, all of them text. `{thing}` in a value stands for
	// the name of the thing. If there are none, the parameter `ThingName` is the name of
	// the thing.
	Parameters map[string]string `toml:"parameters"`
	// Whether to remove the two files of the claim once the first certificate has been in
	// use for `rotate.grace`. The service must be able to remove them: `state_dir/claim`
	// is a good place for them, `/etc/keyvet` is not. Reports warn of a claim that cannot
	// be removed (docs/rotation.md, "Old keys").
	DeleteClaim bool `toml:"delete_claim"`
}

// Rotate is the table [rotate].
type Rotate struct {
	// The issuer of the next certificate: `fleet-provisioning` means AWS IoT, `topics` means
	// a function of yours (`docs/aws/README.md`).
	Issuer string `toml:"issuer"`
	// The provisioning template for the issuer `fleet-provisioning`; it gets
	// `provision.parameters`. Empty means `provision.template`. Without either, this
	// issuer cannot rotate.
	Template string `toml:"template"`
	// The algorithm of the new key: `ecdsa-p256`, `ecdsa-p384`, `rsa-2048` or `rsa-3072`.
	// The key is in the TPM if there is one.
	Key string `toml:"key"`
	// The algorithms that a job may ask for besides `rotate.key`. `[]` means those that
	// are not weaker than `rotate.key`, by the security strengths of NIST SP 800-57:
	// `rsa-2048` is the weakest, `ecdsa-p256` and `rsa-3072` are equal, `ecdsa-p384` is
	// the strongest.
	Keys []string `toml:"keys"`
	// The shortest time between two rotations by jobs. An earlier job is answered FAILED
	// with `KEYVET_ROTATE_TOO_SOON`; rotations for other reasons are not held up. `"0s"`
	// means no limit.
	MinInterval Duration `toml:"min_interval"`
	// How long before the certificate expires the device rotates without being asked, such
	// as `"720h"`; devices begin at different times, up to a quarter of this earlier. `""`
	// means only when asked.
	Before Duration `toml:"before"`
	// How long the old key is kept after a rotation, even if another rotation follows.
	Grace Duration `toml:"grace"`
}

// Schedule is the table [schedule].
type Schedule struct {
	// The time between two checks, varied by up to a tenth. An undecided check is repeated
	// sooner. `"0s"` means only when the service starts.
	Every Duration `toml:"every"`
}

// Shadow is the table [shadow].
type Shadow struct {
	// The shortest time between two checks. Of the requests that come earlier, the newest
	// is carried out when this time is over.
	MinInterval Duration `toml:"min_interval"`
}

// Metrics is the table [metrics].
type Metrics struct {
	// A file that keyvet writes for the textfile collector of Prometheus' node_exporter,
	// such as `"/var/lib/prometheus/node-exporter/keyvet.prom"`: verdict, gate, findings,
	// keys, expiry. The user keyvet must be able to write in its directory, and the systemd
	// unit needs `ReadWritePaths=` of it in a drop-in. If empty, there is none.
	Textfile string `toml:"textfile"`
}

// Defender is the table [defender].
type Defender struct {
	// Whether to send the counts of a report as custom metrics.
	Enabled bool `toml:"enabled"`
}

// Log is the table [log].
type Log struct {
	// The least important messages to log: `debug`, `info`, `warn` or `error`.
	Level string `toml:"level"`
}

// IssuerFleet is the rotate.issuer that is AWS IoT.
const IssuerFleet = "fleet-provisioning"

// Files returns the files that the configuration was read from, those last whose
// values take precedence.
func (c *Config) Files() []string { return c.files }

// Default returns the configuration of an empty file.
func Default() *Config {
	c := new(Config)
	c.StateDir = "/var/lib/keyvet"
	c.RunDir = "/run/keyvet"
	c.TPM.Address = "/dev/tpmrm0"
	c.TPM.Timeout.Duration = 30 * time.Second
	c.TPM.Wait.Duration = 90 * time.Second
	c.Evidence.PCRs = PCRs{Bank: defaultBank, Indices: []uint{0, 1, 2, 3, 4, 5, 6, 7}}
	c.Evidence.BootLog = true
	c.Evidence.Required = true
	c.Check.ExpiryWarning.Duration = 720 * time.Hour
	c.MQTT.KeepAlive.Duration = 5 * time.Minute
	c.MQTT.Timeout.Duration = 10 * time.Second
	c.MQTT.ReconnectMax.Duration = 512 * time.Second
	c.MQTT.ReportTopic = "keyvet/{thing}/report"
	c.Gate.Open = gate.Acknowledged
	c.Rotate.Issuer = IssuerFleet
	c.Rotate.Key = device.ECDSAP256
	c.Rotate.MinInterval.Duration = time.Hour
	c.Rotate.Grace.Duration = 24 * time.Hour
	c.Schedule.Every.Duration = 24 * time.Hour
	c.Shadow.MinInterval.Duration = time.Minute
	c.Defender.Enabled = true
	c.Log.Level = "info"
	return c
}
