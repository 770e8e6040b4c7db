package device

import "fmt"

// tpmCurves names TPM_ECC_CURVE (TPM 2.0 Library, Part 2, section 6.4): curves
// that other formats have too as those name them.
var tpmCurves = map[uint16]string{
	0x0001: "P192", 0x0002: "P-224", 0x0003: "P-256", 0x0004: "P-384", 0x0005: "P-521",
	0x0010: "BN_P256", 0x0011: "BN_P638", 0x0020: "SM2",
	0x0030: "brainpoolP256r1", 0x0031: "brainpoolP384r1", 0x0032: "brainpoolP512r1",
	0x0040: "Curve25519", 0x0041: "Curve448",
}

// TPMCurve returns the name of a curve by its number in a TPM's structures.
func TPMCurve(id uint16) string {
	if name, ok := tpmCurves[id]; ok {
		return name
	}
	return fmt.Sprintf("TPM-curve-0x%04x", id)
}
