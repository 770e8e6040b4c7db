package keyfile

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device"
)

// What a private key's partner can be found to be.
var (
	alone    = device.Answer{Status: device.NotApplicable, Why: "no certificate, request or public key stands beside it"}
	partners = device.Answer{Status: device.Pass, Why: "its public half stands beside it"}
)

// pair holds each private key against what else is in the file. It gives each to
// its certificate, and returns which objects are thereby told.
func (c *contents) pair() (merged map[int]bool) {
	merged = make(map[int]bool)
	var beside company
	certificates := make(map[string][]int)
	for i, o := range c.objects {
		if o.private {
			continue
		}
		beside.add(o.public, o.spki)
		if id := device.KeyIdentity(o.spki); o.certificate && id != "" {
			certificates[id] = append(certificates[id], i)
		}
	}
	for i := range c.objects {
		key := &c.objects[i]
		if !key.private {
			continue
		}
		key.partner = beside.partner(key.public, key.spki, key.privateSPKI, "the file")
		// The certificate is that of the private key, or of the public one that it states.
		for _, spki := range [][]byte{key.privateSPKI, key.spki} {
			id := device.KeyIdentity(spki)
			j := slices.IndexFunc(certificates[id], func(j int) bool { return device.SameKey(spki, c.objects[j].spki) })
			if j < 0 {
				continue
			}
			cert := &c.objects[certificates[id][j]]
			certificates[id] = slices.Delete(certificates[id], j, j+1)
			cert.private, cert.privateSPKI, cert.wrapped = true, key.privateSPKI, key.wrapped
			cert.numbers, cert.partner = key.numbers, key.partner
			if device.SameKey(key.privateSPKI, cert.spki) {
				cert.privateSPKI = cert.spki // in one form
			}
			merged[i] = true
			break
		}
	}
	return merged
}

// company is the public keys that stand beside a private one.
type company struct {
	count   int
	keys    map[string][][]byte // their SPKIs by [device.KeyIdentity]
	named   map[string]bool     // their algorithms
	unknown map[string]bool     // the algorithms of those that are only named
}

func (c *company) add(public any, spki []byte) {
	if c.count++; c.count == 1 {
		c.keys, c.named, c.unknown = make(map[string][][]byte), make(map[string]bool), make(map[string]bool)
	}
	algorithm := device.Key{Public: public}.Algorithm()
	c.named[algorithm] = true
	if len(spki) == 0 {
		c.unknown[algorithm] = true
		return
	}
	id := device.KeyIdentity(spki)
	c.keys[id] = append(c.keys[id], spki)
}

func (c *company) has(spki []byte) bool {
	return slices.ContainsFunc(c.keys[device.KeyIdentity(spki)], func(other []byte) bool { return device.SameKey(spki, other) })
}

// partner is whether a private key, which states one public key and makes
// another or the same, is that of a key in the company, which is in a place.
func (c *company) partner(public any, stated, made []byte, place string) device.Answer {
	algorithm := device.Key{Public: public}.Algorithm()
	switch {
	case c.count == 0:
		return alone
	case c.has(stated) || c.has(made):
		return partners
	case c.unknown[algorithm], len(stated) == 0 && len(made) == 0 && c.named[algorithm]:
		return notTested("whether it is the private key of a key of %s is not known, since its public half is not", place)
	}
	return device.Answer{Status: device.Fail, Why: fmt.Sprintf("does not belong to any certificate, request or public key of %s", place)}
}

// Pair holds files that were named together against each other, if exactly one
// of them has private keys and exactly one other has certificates or requests.
// They then count as one file: a private key that stands alone in its own must be
// that of a key of the other, and the certificates of both are beside each other.
// Any other set of files was not put together to fit.
func Pair(files ...[]device.Key) {
	only := func(want func(device.Key) bool, but int) (found int) {
		found = -1
		for i, keys := range files {
			if i == but || !slices.ContainsFunc(keys, want) {
				continue
			}
			if found >= 0 {
				return -1
			}
			found = i
		}
		return found
	}
	private := only(func(k device.Key) bool { return k.Private != nil }, -1)
	public := only(func(k device.Key) bool { return len(k.Chain) > 0 || k.CertificateError != "" || k.Request != nil }, private)
	if private < 0 || public < 0 {
		return
	}
	var beside company
	for _, k := range files[public] {
		beside.add(k.Public, k.SPKI)
	}
	place := strings.TrimPrefix(files[public][0].Source, "file:")
	for _, k := range files[private] {
		if k.Private != nil && k.Private.Partner.Status == device.NotApplicable {
			k.Private.Partner = beside.partner(k.Public, k.SPKI, k.Private.SPKI, place)
		}
	}
	together(files[private], files[public])
}

// together puts the certificates of two files beside each other.
func together(a, b []device.Key) {
	var all []*x509.Certificate
	for _, keys := range [][]device.Key{a, b} {
		i := slices.IndexFunc(keys, func(k device.Key) bool { return len(k.Chain) > 0 })
		if i < 0 {
			return
		}
		all = append(all, keys[i].Beside...)
	}
	for _, keys := range [][]device.Key{a, b} {
		for i := range keys {
			if len(keys[i].Chain) > 0 {
				keys[i].Beside = all
			}
		}
	}
}
