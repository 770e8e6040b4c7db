package device

import "slices"

// Algorithm is one by which a device makes a key for itself.
type Algorithm struct {
	Name     string // in jobs and in the configuration: "ecdsa-p256"
	Reported string // by [Key.Algorithm]: "ECDSA-P256"
	Strength int    // bits, by NIST SP 800-57 Part 1 Rev. 5, table 2
}

// The names of the algorithms.
const (
	ECDSAP256 = "ecdsa-p256"
	ECDSAP384 = "ecdsa-p384"
	RSA2048   = "rsa-2048"
	RSA3072   = "rsa-3072"
)

var algorithms = []Algorithm{
	{ECDSAP256, "ECDSA-P256", 128},
	{ECDSAP384, "ECDSA-P384", 192},
	{RSA2048, "RSA-2048", 112},
	{RSA3072, "RSA-3072", 128},
}

// AlgorithmNamed returns the algorithm of a name; the zero value if there is none.
func AlgorithmNamed(name string) Algorithm {
	if i := slices.IndexFunc(algorithms, func(a Algorithm) bool { return a.Name == name }); i >= 0 {
		return algorithms[i]
	}
	return Algorithm{}
}

// Algorithms returns the names of all algorithms.
func Algorithms() []string { return NotWeaker("") }

// NotWeaker returns the names of those algorithms whose keys are no weaker than
// the one named.
func NotWeaker(name string) (names []string) {
	least := AlgorithmNamed(name).Strength
	for _, a := range algorithms {
		if a.Strength >= least {
			names = append(names, a.Name)
		}
	}
	return names
}
