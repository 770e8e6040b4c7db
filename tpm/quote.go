package tpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/advisory"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// AttestRequest says what evidence is to be about.
type AttestRequest struct {
	Digest [32]byte // device.Digest of the report
	Nonce  []byte   // the verifier's, at most evidence.MaxNonce bytes; nil if it gave none
	Bank   string   // of the PCRs: "sha256", "sha384" or "sha512"; "" for "sha256"
	PCRs   []uint   // to be quoted; nil for 0 to 7
	// BootLog is what the firmware measured, in gzip, to go with the evidence;
	// nil for none.
	BootLog []byte
	// DeviceKey is the device's key in this TPM, which the attestation key is
	// to certify; nil for none.
	DeviceKey *Signer
}

// Quote is evidence over the report of that digest alone: [TPM.Attest] without
// a nonce or a device key.
func (t *TPM) Quote(digest [32]byte) (*device.Evidence, error) {
	return t.Attest(AttestRequest{Digest: digest})
}

// maxCertificates bounds the certificates that go with evidence, in bytes of
// DER: a report keeps 16 KB free for it.
const maxCertificates = 9 << 10

// Attest has the TPM sign what [evidence.QualifyingData] makes of a report's
// digest, by the key that [TPM.Inventory] lists as tpm-ak: with a quote of PCRs
// (TPM2_Quote, Part 3, section 18.4) and, where there is a device key, with its
// certification (TPM2_Certify, section 18.2). The first EK certificate in NV
// comes with it, if there is one. All of it is verified before it is handed out.
func (t *TPM) Attest(r AttestRequest) (*device.Evidence, error) {
	if len(r.Nonce) > evidence.MaxNonce {
		return nil, fmt.Errorf("attest: a nonce of %d bytes, more than %d", len(r.Nonce), evidence.MaxNonce)
	}
	bank, pcrs, err := pcrsOf(r.Bank, r.PCRs)
	if err != nil {
		return nil, fmt.Errorf("attest: %w", err)
	}
	e := &device.Evidence{
		Level: device.EvidenceSelfAsserted, Nonce: base64.StdEncoding.EncodeToString(r.Nonce), BootLog: base64.StdEncoding.EncodeToString(r.BootLog),
	}
	err = t.withAK(func(ak loadedAK) error {
		e.AKPublic, e.AKParent = base64.StdEncoding.EncodeToString(ak.public.Bytes()), base64.StdEncoding.EncodeToString(ak.parent)
		qualifying := evidence.QualifyingData(r.Digest, r.Nonce, r.BootLog, t.addEKCertificate(e)...)
		if err := t.quotePCRs(e, ak.NamedHandle, qualifying, bank, pcrs); err != nil {
			return err
		}
		if r.DeviceKey == nil {
			return nil
		}
		return r.DeviceKey.with(t, func(key tpm2.AuthHandle, area *tpm2.TPMTPublic) (err error) {
			e.DeviceKey, err = t.certify(ak.NamedHandle, qualifying, key, area)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	s, err := evidence.VerifyDigest(e, r.Digest)
	if err != nil {
		return nil, fmt.Errorf("attest: the TPM signed something else: %w", err)
	}
	if k := t.read.kept; k != nil {
		if err := k.holds(s); err != nil {
			return nil, fmt.Errorf("attest: kept keys: %w", err)
		}
	}
	return e, nil
}

// addEKCertificate adds the first EK certificate in NV, if there is one, and
// those of its issuers that are there too. It returns what it added, in DER.
func (t *TPM) addEKCertificate(e *device.Evidence) [][]byte {
	read := t.read.certificates.Load() // the very ones of the inventory
	if read == nil {
		inv := inventory{t: t}
		read = new(endorsements)
		read.certs, read.issuers = inv.readCertificates()
	}
	if len(read.certs) == 0 {
		return nil
	}
	first := read.certs[0]
	added := [][]byte{first.der}
	e.Level, e.EKCertificate = device.EvidenceCertified, base64.StdEncoding.EncodeToString(first.der)
	if first.cert == nil { // unparsable
		return added
	}
	size := len(first.der)
	for _, issuer := range device.NewIssuers(read.issuers).Above(first.cert) {
		if size += len(issuer.Raw); size > maxCertificates || len(e.EKIssuers) == evidence.MaxIssuers {
			break
		}
		added = append(added, issuer.Raw)
		e.EKIssuers = append(e.EKIssuers, base64.StdEncoding.EncodeToString(issuer.Raw))
	}
	return added
}

// emptyAuth is a key with the empty password, which it has.
func emptyAuth(key tpm2.NamedHandle) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: key.Handle, Name: key.Name, Auth: tpm2.PasswordAuth(nil)}
}

// ownScheme has a key sign by the scheme it was made with.
var ownScheme = tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}

func (t *TPM) quote(ak tpm2.NamedHandle, qualifying [32]byte, bank tpm2.TPMAlgID, pcrs []uint) (*tpm2.QuoteResponse, error) {
	rsp, err := tpm2.Quote{
		SignHandle: emptyAuth(ak), QualifyingData: tpm2.TPM2BData{Buffer: qualifying[:]}, InScheme: ownScheme, PCRSelect: selection(bank, pcrs),
	}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	return rsp, nil
}

func selection(bank tpm2.TPMAlgID, pcrs []uint) tpm2.TPMLPCRSelection {
	if len(pcrs) == 0 {
		return tpm2.TPMLPCRSelection{}
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: bank, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...)},
	}}
}

// quotePCRs adds a quote to e, and the values of its PCRs. Where one was
// extended between reading and signing, it starts again.
func (t *TPM) quotePCRs(e *device.Evidence, ak tpm2.NamedHandle, qualifying [32]byte, bank tpm2.TPMAlgID, pcrs []uint) error {
	const attempts = 3
	for range attempts {
		values, err := t.takePCRs(bank, pcrs)
		if err != nil {
			return err
		}
		if len(values) == 0 { // this TPM has no such bank
			pcrs = nil
		}
		rsp, err := t.quote(ak, qualifying, bank, pcrs)
		if err != nil {
			return err
		}
		attest, err := rsp.Quoted.Contents()
		if err != nil {
			return fmt.Errorf("quote: %w", err)
		}
		info, err := attest.Attested.Quote()
		if err != nil {
			return fmt.Errorf("quote: %w", err)
		}
		if sum := sha256.Sum256(values); len(values) > 0 && !bytes.Equal(sum[:], info.PCRDigest.Buffer) {
			continue
		}
		text := base64.StdEncoding.EncodeToString
		e.Quote, e.Signature, e.PCRValues = text(rsp.Quoted.Bytes()), text(tpm2.Marshal(rsp.Signature)), text(values)
		return nil
	}
	return errors.New("quote: the PCRs read are not those that were signed: they keep changing")
}

// certify has the attestation key sign that a loaded key is in this TPM.
func (t *TPM) certify(ak tpm2.NamedHandle, qualifying [32]byte, key tpm2.AuthHandle, area *tpm2.TPMTPublic) (*device.CertifiedKey, error) {
	rsp, err := tpm2.Certify{
		ObjectHandle: key, SignHandle: emptyAuth(ak), QualifyingData: tpm2.TPM2BData{Buffer: qualifying[:]}, InScheme: ownScheme,
	}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("certify: %w", err)
	}
	text := base64.StdEncoding.EncodeToString
	return &device.CertifiedKey{
		Public: text(tpm2.Marshal(*area)), Attest: text(rsp.CertifyInfo.Bytes()), Signature: text(tpm2.Marshal(rsp.Signature)),
	}, nil
}

// addAttestationKey adds the attestation key, and holds what the TPM states of
// its firmware against what it signs of it, with all that is to be kept. Whoever
// sits between the TPM and this program can change the one, not the other, but can
// refuse the key: a TPM without one is a gap, which is minor only if the operator
// accepts such a TPM ([Options]), or if the TPM states that the endorsement
// hierarchy has a password. Where all that had to be made is kept, nothing is
// signed yet: Attest does that.
func (inv *inventory) addAttestationKey(info device.TPM) {
	if ak := inv.t.ak; inv.t.read.kept != nil && !inv.made {
		inv.addObject(attestationKey.id, device.RoleAK, object{source: ak.source(), area: ak.area, public: tpm2.Marshal(*ak.area)})
		return
	}
	var o object
	inv.toKeep.Schema = keptSchema
	var signed *evidence.Statement
	err := inv.t.withAK(func(ak loadedAK) (err error) {
		o.source = ak.source
		o.area, _ = ak.public.Contents() // no error: withAK has read it
		o.public = ak.public.Bytes()
		signed, err = inv.show(ak)
		return err
	})
	if o.area != nil {
		inv.addObject(attestationKey.id, device.RoleAK, o)
	}
	if err != nil {
		err = fmt.Errorf("the firmware version is stated, and not signed: %w", err)
		if inv.t.opts.AKOptional && errors.Is(err, errUnsupported) || inv.guarded(tpm2.TPMRHEndorsement, err) {
			inv.minor(attestationKey.id, err)
		} else {
			inv.gap(attestationKey.id, err)
		}
		return
	}
	if version := advisory.FirmwareVersion(info.Manufacturer, signed.FirmwareVersion); version != info.FirmwareVersion {
		inv.gap("tpm firmware version", fmt.Errorf("the TPM states %s, but signs %s: something between keyvet and the TPM changes what it says", info.FirmwareVersion, version))
	}
}

// show has the TPM sign what it has shown of its keys, for [TPM.Shown].
func (inv *inventory) show(ak loadedAK) (*evidence.Statement, error) {
	e, s, err := inv.t.signState(ak, inv.toKeep.digest())
	if err != nil {
		return nil, err
	}
	if inv.t.ak != nil && inv.toKeep.Certificates != nil {
		inv.t.read.shown = &Kept{body: inv.toKeep, evidence: *e, statement: *s}
	}
	return s, nil
}
