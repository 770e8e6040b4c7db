package tpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/ekcert"
)

// Inventory reads all that is to be vetted in the TPM: what it says of itself,
// its endorsement keys with their certificates (RSA-2048, P-256 and P-384
// always, others where there is a certificate or a persistent key), the storage
// root key, the attestation key of [TPM.Quote], every other key at a persistent
// handle of any hierarchy, and the certificates of device identities (IDevID and
// IAK). Sources tell the way each key came: "tpm:0x81010001" for a persistent
// handle, "tpm:template:L-1" for a primary key made by that template,
// "tpm:nv:0x01c00002" for a certificate alone. Of a TPM 1.2, it is the
// endorsement key ("tpm:pubek").
//
// What could not be read is a gap, and so is a firmware version other than the
// one that the TPM signs. A TPM 2.0 in working order gives its attestation key
// and at least one endorsement key. Minor is a gap only if the same answer could
// hide nothing: an endorsement key that the profile leaves to the maker, sealed
// data at a persistent handle, an NV index without a certificate; and, once an
// endorsement key was read, a key that nobody ever made since its hierarchy has a
// password, and an NV index that is not for everybody.
func (t *TPM) Inventory() (device.TPM, []device.Key, []device.Gap) {
	info, err := t.Info()
	switch {
	case err != nil:
		return info, nil, []device.Gap{{What: "tpm", Why: err.Error()}}
	case info.State == device.TPMDegraded:
		return info, nil, []device.Gap{{What: "tpm", Why: "in failure mode: its keys cannot be read; reset the device, and replace the TPM if that does not help"}}
	}
	if info.Family == "1.2" {
		return t.inventory12(info)
	}
	inv := inventory{t: t}
	info.Clearing, info.Lockout = inv.addStates()
	inv.readPersistent()
	inv.take(func(o object) bool { return t.ak != nil && o.handle == t.ak.handle }) // listed as tpm-ak
	certs, issuers := inv.readEndorsements()
	inv.addEKs(certs)
	inv.addSRK()
	inv.excuse()
	info.PlatformCertificate = inv.readPlatformCertificate()
	info.NamingKey = inv.namingKey()
	identities, identityIssuers := inv.readIdentities()
	inv.addAttestationKey(info)
	for _, o := range inv.persistent {
		inv.addObject(fmt.Sprintf("tpm-%#08x", uint32(o.handle)), roleOf(o), o)
	}
	inv.addCertificates(certs, issuers)
	inv.addCertificates(identities, identityIssuers)
	return info, inv.keys, inv.gaps
}

// Handles of the TCG Registry of Reserved TPM 2.0 Handles and Localities, section 2.3.1.
const (
	srkHandle       = 0x81000001
	lastSRKHandle   = 0x8100ffff
	firstEKHandle   = 0x81010000
	lastEKHandle    = 0x8101ffff
	firstTransient  = 0x80000000
	lastTransient   = 0x80ffffff
	firstPersistent = 0x81000000
	lastPersistent  = 0x81ffffff

	lastOwnerPersistent = 0x817fffff // above are the platform's (Part 2, section 7.5)
)

// inventory is one being read.
type inventory struct {
	t          *TPM
	state      state
	persistent []object          // not yet given a place in keys
	nv         *[]tpm2.TPMHandle // the indices that may hold a certificate; nil until they are listed
	toKeep     keptBody
	made       bool // a key was made that is not kept
	keys       []device.Key
	gaps       []device.Gap
	excusable  []excusable
}

// object is a key in the TPM.
type object struct {
	handle tpm2.TPMHandle
	source string
	area   *tpm2.TPMTPublic
	public []byte // area, as the TPM gave it
}

func (inv *inventory) gap(what string, why error) {
	inv.gaps = append(inv.gaps, device.Gap{What: what, Why: why.Error(), Minor: isMinor(why)})
}

func (inv *inventory) minor(what string, why error) {
	inv.gaps = append(inv.gaps, device.Gap{What: what, Why: why.Error(), Minor: true})
}

func (inv *inventory) readPersistent() {
	handles, err := inv.t.handles(firstPersistent, lastPersistent)
	if err != nil {
		inv.gap("tpm: keys at persistent handles", err)
		return
	}
	for _, h := range handles {
		source := fmt.Sprintf("tpm:%#08x", uint32(h))
		public, name, err := inv.t.publicOf(h)
		var area *tpm2.TPMTPublic
		if err == nil {
			area, err = named(public, name)
		}
		if !inv.state.platform && h > lastOwnerPersistent && errors.Is(err, tpm2.TPMRCHandle) {
			inv.minor(source, fmt.Errorf("a key of the platform, whose hierarchy the firmware has disabled until the TPM is reset: nothing can use it: %w", err))
			continue
		}
		if err != nil {
			inv.gap(source, fmt.Errorf("read public area: %w", explain(err)))
			continue
		}
		inv.persistent = append(inv.persistent, object{h, source, area, public.Bytes()})
	}
}

// take removes and returns the first persistent object that is wanted, or nil.
func (inv *inventory) take(wanted func(object) bool) *object {
	for i, o := range inv.persistent {
		if wanted(o) {
			inv.persistent = append(inv.persistent[:i:i], inv.persistent[i+1:]...)
			return &o
		}
	}
	return nil
}

func (inv *inventory) addObject(id string, role device.Role, o object) {
	public, spki, err := publicKey(o.area)
	if err != nil {
		inv.gap(o.source, err)
		return
	}
	inv.addKey(device.Key{ID: id, Role: role, Source: o.source, Public: public, SPKI: spki, TPM: tpmObject(o.public)})
}

// tpmObject is the name and attributes of a key. A name by a hash that is not
// known is left out.
func tpmObject(public []byte) *device.TPMObject {
	return &device.TPMObject{Name: objectName(public), Attributes: binary.BigEndian.Uint32(public[4:])} // after type and nameAlg
}

// roleOf is what a persistent key is for, by its handle and by what the TPM
// lets it do: a restricted key that signs only what the TPM made itself attests,
// one that decrypts only the TPM's own structures guards other keys.
func roleOf(o object) device.Role {
	a := o.area.ObjectAttributes
	switch {
	case !a.Restricted || !a.FixedTPM || !a.SensitiveDataOrigin || a.SignEncrypt == a.Decrypt:
		return device.RolePersistent
	case a.SignEncrypt:
		return device.RoleAK
	case o.handle >= firstEKHandle && o.handle <= lastEKHandle:
		return device.RoleEK
	case o.handle >= firstPersistent && o.handle <= lastSRKHandle:
		return device.RoleSRK
	}
	return device.RolePersistent
}

func (inv *inventory) addKey(k device.Key) {
	inv.keys = append(inv.keys, k)
	if inv.t.Found != nil {
		inv.t.Found(k)
	}
}

// addPrimary adds a primary key from its persistent handle, or else by its
// template. That the TPM does not make such a key is a minor gap if the key is
// optional, else only if the TPM's own lists say so too: one refusal is easily
// put in the way of a key that would fail a check.
func (inv *inventory) addPrimary(p primary, optional bool, role device.Role, persistent *object) {
	if persistent != nil {
		inv.addObject(p.id, role, *persistent)
		return
	}
	o, kept := inv.t.keptPrimary(p)
	var err error
	if !kept {
		o, err = inv.t.readPrimary(p)
	}
	switch {
	case err == nil:
		inv.made = inv.made || !kept
		inv.toKeep.Keys = append(inv.toKeep.Keys, keptKey{p.id, o.public})
		inv.addObject(p.id, role, o)
	case !errors.Is(err, errUnsupported):
		inv.gap(p.id, err)
		if inv.guarded(p.hierarchy, err) {
			inv.excusable = append(inv.excusable, excusable{gap: len(inv.gaps) - 1})
		}
	case optional || inv.t.lacks(&p.area) || inv.t.makesNo(&p.area):
		inv.minor(p.id, err)
	default:
		inv.gap(p.id, fmt.Errorf("the TPM lists the algorithm, but refuses the key: something between keyvet and the TPM may do so: %w", err))
	}
}

// addSRK adds the storage root key: the key at the handle that is set aside for
// it, which programs then use, else those that they make by the templates.
func (inv *inventory) addSRK() {
	persistent := inv.take(func(o object) bool { return o.handle == srkHandle })
	inv.addPrimary(storageRootKey, false, device.RoleSRK, persistent)
	if persistent == nil {
		inv.addPrimary(rsaStorageRootKey, false, device.RoleSRK, nil)
	}
}

// addEKs adds the endorsement keys, of which there must be one. A persistent one
// belongs to the template that it was made by, else to the first of its algorithm.
func (inv *inventory) addEKs(certs []*certificate) {
	made := make(map[string]*object)
	for _, matches := range []func(endorsementKey, object) bool{
		func(ek endorsementKey, o object) bool {
			return o.area.NameAlg == ek.area.NameAlg && sameTemplate(o.area, &ek.area)
		},
		func(ek endorsementKey, o object) bool { return isEK(o.area, ek.algorithm) },
	} {
		for _, ek := range endorsementKeys {
			if made[ek.id] == nil {
				made[ek.id] = inv.take(func(o object) bool {
					return o.handle >= firstEKHandle && o.handle <= lastEKHandle && matches(ek, o)
				})
			}
		}
	}
	before := len(inv.gaps)
	for _, ek := range endorsementKeys {
		certified := slices.ContainsFunc(certs, func(c *certificate) bool { return c.index == ek.index })
		if ek.always || certified || made[ek.id] != nil {
			inv.addEK(ek, made[ek.id], certs)
		}
	}
	read := slices.ContainsFunc(inv.keys, func(k device.Key) bool { return k.Role == device.RoleEK })
	told := slices.ContainsFunc(inv.gaps[before:], func(g device.Gap) bool { return !g.Minor })
	if !read && !told {
		inv.gap("tpm-ek", errors.New("not one endorsement key could be read, and every TPM 2.0 has one: look for what is between keyvet and the TPM, and replace the TPM if nothing is"))
	}
}

// sameTemplate reports whether a key was made by a template: all but the key
// itself is the same.
func sameTemplate(area, template *tpm2.TPMTPublic) bool {
	key := *area
	key.Unique = template.Unique
	return area.Type == template.Type && area.ObjectAttributes == template.ObjectAttributes && sameKey(&key, template)
}

func sameKey(a, b *tpm2.TPMTPublic) bool { return bytes.Equal(tpm2.Marshal(*a), tpm2.Marshal(*b)) }

// addEK adds an endorsement key from its persistent handle, else by its
// template, else from its certificate alone, which is all there is where the
// endorsement hierarchy has a password.
func (inv *inventory) addEK(ek endorsementKey, persistent *object, certs []*certificate) {
	before := len(inv.gaps)
	inv.addPrimary(ek.primary, ek.optional, device.RoleEK, persistent)
	if len(inv.gaps) == before {
		return
	}
	if inv.hasIndex(ek.index) { // so somebody did make this key
		inv.excusable = slices.DeleteFunc(inv.excusable, func(e excusable) bool { return e.gap == before })
	}
	for _, c := range certs {
		if c.public == nil || c.index != ek.index && isEKIndex(c.index) {
			continue // of no key, or of that of another template
		}
		if k := c.key(ek.id); k.Algorithm() == ek.algorithm {
			inv.addKey(k)
			gap := &inv.gaps[before]
			gap.Why, gap.Minor = "read from its certificate alone: "+gap.Why, true
			return
		}
	}
}

// isEK reports whether a key is a restricted decryption key that never leaves
// the TPM, of that algorithm and size.
func isEK(area *tpm2.TPMTPublic, algorithm string) bool {
	public, _, err := publicKey(area)
	a := area.ObjectAttributes
	return err == nil && a.FixedTPM && a.Restricted && a.Decrypt && !a.SignEncrypt && device.Key{Public: public}.Algorithm() == algorithm
}

// readPrimary makes a primary key, reads its public area and flushes it.
func (t *TPM) readPrimary(p primary) (object, error) {
	o := object{source: "tpm:template:" + p.name}
	err := t.withPrimary(p, func(_ tpm2.NamedHandle, public tpm2.TPM2BPublic) (err error) {
		o.area, err = public.Contents()
		o.public = public.Bytes()
		return err
	})
	return o, err
}

// errUnsupported: the TPM says that it does not have the algorithm, curve or
// size of a key that it was to make.
var errUnsupported = errors.New("this TPM has no such key")

// isMinor reports whether what was read is no key. No refusal is minor by
// itself: whoever is on the bus can make one.
func isMinor(err error) bool {
	return errors.Is(err, errNoPublicKey) || errors.Is(err, ekcert.ErrNotCertificate)
}

// lacks reports whether the TPM's own lists leave out a key.
func (t *TPM) lacks(area *tpm2.TPMTPublic) bool {
	listed, err := t.lists(area)
	return err == nil && !listed
}

// namingKey is the id of the endorsement key that the TPM is known by: of those
// that every TPM has, the first that its lists have.
// It is "" if there is none, or if the lists cannot be read, which hides no key.
func (inv *inventory) namingKey() string {
	if k := inv.t.read.kept; k != nil {
		inv.toKeep.NamingKey = k.body.NamingKey
		return k.body.NamingKey
	}
	for _, ek := range endorsementKeys {
		listed, err := inv.t.lists(&ek.area)
		switch {
		case err != nil:
			inv.minor("the TPM's lists of algorithms", err)
			return ""
		case !ek.always:
			return ""
		case listed:
			inv.toKeep.NamingKey = ek.id
			return ek.id
		}
	}
	return ""
}

// lists reports whether the TPM lists the algorithm or the curve of a key
// (TPM_CAP_ALGS and TPM_CAP_ECC_CURVES, Part 3, section 30.2).
func (t *TPM) lists(area *tpm2.TPMTPublic) (listed bool, err error) {
	what, wanted := tpm2.TPMCapAlgs, uint32(area.Type)
	if ecc, err := area.Parameters.ECCDetail(); err == nil {
		what, wanted = tpm2.TPMCapECCCurves, uint32(ecc.CurveID)
	}
	err = t.capability(what, 0, func(data *tpm2.TPMUCapabilities) (last uint32, err error) {
		if algorithms, err := data.Algorithms(); err == nil {
			for _, a := range algorithms.AlgProperties {
				last, listed = uint32(a.Alg), listed || uint32(a.Alg) == wanted
			}
			return last, nil
		}
		curves, err := data.ECCCurves()
		if err != nil {
			return 0, err
		}
		for _, c := range curves.ECCCurves {
			last, listed = uint32(c), listed || uint32(c) == wanted
		}
		return last, nil
	})
	return listed, err
}

// makesNo reports whether a key is of P-256, which this TPM lists but refuses the
// attestation key as well. What is in the way of P-256 hides no firmware version:
// then the attestation key has to be one of RSA.
func (t *TPM) makesNo(area *tpm2.TPMTPublic) bool {
	ecc, err := area.Parameters.ECCDetail()
	if err != nil || ecc.CurveID != tpm2.TPMECCNistP256 {
		return false
	}
	_, err = t.readPrimary(attestationKey)
	return errors.Is(err, errUnsupported)
}
