package rotate

import "slices"

// algorithm is one by which a new key can be made.
type algorithm struct {
	name     string // in jobs and in the configuration
	reported string // by [device.Key.Algorithm]
	strength int    // bits, by NIST SP 800-57 Part 1 Rev. 5, table 2
}

var algorithms = []algorithm{
	{"ecdsa-p256", "ECDSA-P256", 128},
	{"ecdsa-p384", "ECDSA-P384", 192},
	{"rsa-2048", "RSA-2048", 112},
	{"rsa-3072", "RSA-3072", 128},
}

// algorithmOf returns the algorithm of a name; the zero value if there is none.
func algorithmOf(name string) algorithm {
	if i := slices.IndexFunc(algorithms, func(a algorithm) bool { return a.name == name }); i >= 0 {
		return algorithms[i]
	}
	return algorithm{}
}

// Algorithms returns the names of the algorithms by which a new key can be made.
func Algorithms() []string { return NotWeaker("") }

// NotWeaker returns the names of those algorithms whose keys are no weaker than
// the one named.
func NotWeaker(name string) (names []string) {
	least := algorithmOf(name).strength
	for _, a := range algorithms {
		if a.strength >= least {
			names = append(names, a.name)
		}
	}
	return names
}
