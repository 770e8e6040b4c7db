// Package e2e is the test on a whole machine: Debian with systemd and keyvet's
// package in QEMU, a TPM emulator on the machine's bus, and a local AWS IoT
// endpoint that the machine reaches over its network. `make e2e` runs it.
package e2e
