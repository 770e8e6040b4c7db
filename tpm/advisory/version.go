package advisory

import (
	"strconv"
	"strings"
)

// versionRules are, for the makers that have one, how wide each number of a
// firmware version is, in bits, from the highest down. What is left over is not
// part of the version.
var versionRules = map[string][]int{
	"IFX": {16, 16, 24, 8}, // Infineon: 7.85.4555.0
	"STM": {16, 16},        // STMicroelectronics: the second word is opaque
}

// anyMaker is the rule of all others: nothing is lost.
var anyMaker = []int{16, 16, 16, 16}

// FirmwareVersion returns a firmware version as its maker writes it, of
// TPM_PT_FIRMWARE_VERSION_1 in the upper half and _2 in the lower (TPM 2.0
// Library, Part 2, section 6.13). The maker is TPM_PT_MANUFACTURER: "IFX".
func FirmwareVersion(manufacturer string, version uint64) string {
	rule, ok := versionRules[manufacturer]
	if !ok {
		rule = anyMaker
	}
	var numbers []string
	for _, bits := range rule {
		numbers = append(numbers, strconv.FormatUint(version>>(64-bits), 10))
		version <<= bits
	}
	return strings.Join(numbers, ".")
}
