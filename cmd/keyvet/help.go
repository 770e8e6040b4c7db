package main

const usage = `keyvet vets a device's own keys before the device trusts them.

usage:
  keyvet check  [-config F] [-tpm ADDR] [-blocklist F] [-json] [-v] [FILE ...]
  keyvet run    [-config F] [-once]
  keyvet status [-config F] [-json]
  keyvet rotate [-config F]
  keyvet version [-v]
  keyvet help   [COMMAND]

  check    tests keys here and now; changes nothing, needs no network
  run      the service: check, report to AWS IoT, open the gate, wait for jobs
  status   the last verdict, the gate, the credential, the spool, a rotation
  rotate   a new key and certificate for the device

exit status of check and run -once:
  0 pass (warnings included)   1 a key or the firmware fails
  2 wrong usage or configuration   3 undecided: something could not be looked at

examples:
  keyvet check server.pem                  a certificate, chain, CSR or key
  keyvet check -tpm /dev/tpmrm0            this device, its TPM included
  ssh-keyscan host | keyvet check -        standard input
`

var helpTexts = map[string]string{
	"check": `usage: keyvet check [-config F] [-tpm ADDR] [-blocklist F] [-json] [-v] [FILE ...]

Tests keys here and now. It changes nothing, in the TPM neither, and needs no
network. With FILEs it tests those alone, and the TPM if -tpm is given; without,
all that the configuration names: the TPM, the device's certificate and key, its
CA certificates and further files.

FILE is a certificate, chain, CSR, public or private key in PEM or DER (PKCS#1,
PKCS#8, SEC 1, SPKI), an OpenSSH key, a TPM2B_PUBLIC or TPMT_PUBLIC, or a TSS2
PRIVATE KEY; "-" is standard input. Every object in a file is tested.

  -config F      configuration (default /etc/keyvet/keyvet.toml, if it is there)
  -tpm ADDR      /dev/tpmrm0, unix:PATH or tcp:HOST:PORT (raw TPM commands, as swtpm),
                 spi:/dev/spidevB.C[?speed=10MHz], i2c:/dev/i2c-N[?addr=0x2e]
  -blocklist F   look keys up in this list instead of the built-in one
  -json          one JSON document on standard output
  -v             tell what passed, too

exit status: 0 pass (warnings included), 1 a key or the firmware fails,
2 wrong usage or configuration, 3 undecided: something could not be looked at
`,
	"run": `usage: keyvet run [-config F] [-once]

Vets every key of the device, reports to AWS IoT over MQTT with mutual TLS, and
opens the gate (the file "trusted" in run_dir) once the report is acknowledged;
then waits for jobs and repeats it on schedule. What cannot be delivered is
spooled and sent later. A device that has a claim alone is provisioned first.

  -config F   configuration (default /etc/keyvet/keyvet.toml); it has to name
              thing.name and mqtt.endpoints
  -once       end when the gate is decided

exit status of -once: 0 the gate is open, 1 a key or the firmware fails,
2 wrong usage or configuration, 3 undecided, or not acknowledged
`,
	"rotate": `usage: keyvet rotate [-config F]

Makes the device a new key (in the TPM where there is one) and has a certificate
issued for it, as the job keyvet.rotate does: vetted, tried and reported before
it is used, undone if anything fails. If the service runs, it is asked to.

  -config F   configuration (default /etc/keyvet/keyvet.toml); see [rotate]

exit status: 0 rotated, 1 failed and undone, 2 wrong usage or configuration,
3 not at its end: it goes on by itself (keyvet status tells)
`,
	"status": `usage: keyvet status [-config F] [-json]

Tells the last verdict, how the gate stands and why, the credential, what waits
in the spool, and a rotation under way. It reads files only.

  -config F   configuration (default /etc/keyvet/keyvet.toml, if it is there)
  -json       one JSON document on standard output

exit status: 0 told, 2 wrong usage or configuration, 3 the state cannot be read
`,
	"version": `usage: keyvet version [-v]

Shows the version, the commit and the platform.

  -v          also the time before which a clock cannot be right, which is that
              of the commit
`,
}
