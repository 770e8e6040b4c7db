package check

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var (
	certificateUnparsable = device.Reason{
		Code: "KEYVET_CERTIFICATE_UNPARSABLE", Status: device.Undecided,
		Means: "A certificate could not be parsed.",
		Do:    "Have the certificate issued again by a CA that keeps to RFC 5280.",
	}
	certificateMismatch = device.Reason{
		Code: "KEYVET_KEY_CERTIFICATE_MISMATCH", Status: device.Fail, Severity: device.High,
		Means: "The certificate is for another key.",
		Do:    "Put the certificate and the key that belong together in place.",
	}
	privateMismatch = device.Reason{
		Code: "KEYVET_PRIVATE_KEY_MISMATCH", Status: device.Fail, Severity: device.High,
		Means: "The private key does not belong to the certificate.",
		Do:    "Put the certificate and the key that belong together in place.",
	}
	unknownCA = device.Reason{
		Code: "KEYVET_CHAIN_UNKNOWN_CA", Status: device.Fail, Severity: device.High,
		Means: "The certificate does not lead to a CA that the configuration names.",
		Do:    "Add the missing CA certificate to identity.ca or to the chain, or have the certificate issued by the right CA.",
	}
	signedSHA1 = device.Reason{
		Code: "KEYVET_SIGNATURE_SHA1", Status: device.Fail, Severity: device.High,
		Means: "A certificate is signed with SHA-1, which can be forged.",
		Do:    "Have the certificate issued again with SHA-256.",
	}
	signedMD5 = device.Reason{
		Code: "KEYVET_SIGNATURE_MD5", Status: device.Fail, Severity: device.High,
		Means: "A certificate is signed with MD5, which can be forged.",
		Do:    "Have the certificate issued again with SHA-256.",
	}
	signedMD2 = device.Reason{
		Code: "KEYVET_SIGNATURE_MD2", Status: device.Fail, Severity: device.High,
		Means: "A certificate is signed with MD2, which can be forged.",
		Do:    "Have the certificate issued again with SHA-256.",
	}
	chainBroken = device.Reason{
		Code: "KEYVET_CHAIN_BROKEN", Status: device.Fail, Severity: device.High,
		Means: "The certificates of a chain do not follow each other.",
		Do:    "Put the chain in order, leaf first, each followed by its issuer.",
	}
	issuerNotCA = device.Reason{
		Code: "KEYVET_ISSUER_NOT_CA", Status: device.Fail, Severity: device.High,
		Means: "A certificate of the chain was signed by one that may not sign certificates.",
		Do:    "Have the certificate issued by a CA.",
	}
	signatureUnknown = device.Reason{
		Code: "KEYVET_SIGNATURE_UNKNOWN", Status: device.Undecided,
		Means: "A signature in the chain is of an algorithm that keyvet cannot check.",
		Do:    "Have the certificate issued again with ECDSA or RSA and SHA-256.",
	}
	signatureInvalid = device.Reason{
		Code: "KEYVET_CERTIFICATE_SIGNATURE_INVALID", Status: device.Fail, Severity: device.Critical,
		Means: "A signature in the chain does not verify: the certificate is forged or damaged.",
		Do:    "Find out where the certificate came from, and have it issued again.",
	}
	chainConstraint = device.Reason{
		Code: "KEYVET_CHAIN_CONSTRAINT", Status: device.Fail, Severity: device.High,
		Means: "The chain breaks a rule that its own CAs state, such as a name constraint or a path length.",
		Do:    "Have the certificate issued by a CA that may issue it.",
	}
)

// ofPath are the reasons that [trace] gives.
var ofPath = []device.Reason{signedSHA1, signedMD5, signedMD2, chainBroken, issuerNotCA, signatureUnknown, signatureInvalid}

var chain = Check{
	ID:   "chain",
	Cite: "https://www.rfc-editor.org/rfc/rfc5280#section-6",
	Asks: "Do the certificates of a chain sign each other, and lead to a given CA?",
	Applies: func(k device.Key) bool { // an EK's chain is the question of ekcert
		return k.Role != device.RoleEK && (len(k.Chain) > 0 || k.CertificateError != "") || k.SSH != nil
	},
	Reasons: slices.Concat([]device.Reason{
		certificateUnparsable, certificateMismatch, privateMismatch, keyUnreadable, unknownCA, chainConstraint,
	}, ofPath),
	Run: runChain,
}

func runChain(ctx context.Context, k device.Key, env *Env) []device.Finding {
	if k.SSH != nil {
		return sshSignature(k.SSH)
	}
	var found []device.Finding
	if k.CertificateError != "" {
		found = give(certificateUnparsable, "a certificate could not be parsed: %s", k.CertificateError)
	}
	if len(k.Chain) == 0 {
		return found
	}
	if !sameKey(k.SPKI, k.Leaf().RawSubjectPublicKeyInfo) {
		found = append(found, give(certificateMismatch, "the certificate is for another key")...)
	}
	switch {
	case k.Private == nil:
	case len(k.Private.SPKI) == 0:
		found = append(found, give(keyUnreadable, "whether the private key in %s belongs to the certificate could not be told", k.Private.Path)...)
	case !sameKey(k.Private.SPKI, k.SPKI):
		found = append(found, give(privateMismatch, "the private key in %s does not belong to the certificate", k.Private.Path)...)
	}

	p := trace(k.Chain, env.Roots)
	found = append(found, p.problems...)
	if p.problems == nil {
		found = append(found, constraints(p.certificates)...)
	}
	if len(env.Roots) > 0 && p.anchor == nil && p.problems == nil {
		found = append(found, underUnknownCA(k.Role, p)...)
	}
	for _, ca := range p.certificates[1:] {
		found = append(found, issuerKey(ctx, ca, env)...)
	}
	switch {
	case found != nil:
		return found
	case p.anchor != nil:
		return passed("leads to the given CA %s", p.anchor.Subject)
	case len(p.certificates) == 1 && !selfSigned(k.Leaf()):
		return passed("the certificate is for this key; its issuer %s is not at hand, so its signature was not checked", p.top())
	}
	return passed("leads to %s; whether that is to be trusted was not asked", p.top())
}

// underUnknownCA is about a path that leads to none of the CAs given for the
// device's own chain. Certificates in further files may be under other CAs on
// purpose. Claims mostly are: AWS IoT issues them under a CA it does not
// publish; and so are those of keys in the TPM, by the maker of the chip or of
// the device, and CA certificates that are there for another chain.
func underUnknownCA(role device.Role, p path) []device.Finding {
	const message = "it leads to %s, which is none of the given CAs"
	switch role {
	case device.RoleDevice:
		return give(unknownCA, message, p.top())
	case device.RoleFile:
		return giveAs(device.Warn, device.Medium, unknownCA, message, p.top())
	}
	return nil
}

// sameKey compares the public keys in two SubjectPublicKeyInfos, leaving out
// the algorithm identifiers: that of an RSA key may be rsaEncryption, with or
// without parameters, or, in EK certificates, id-RSAES-OAEP.
func sameKey(a, b []byte) bool {
	ka, kb := subjectPublicKey(a), subjectPublicKey(b)
	return len(ka) > 0 && bytes.Equal(ka, kb)
}

func subjectPublicKey(spki []byte) []byte {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	if rest, err := asn1.Unmarshal(spki, &info); err != nil || len(rest) > 0 {
		return nil
	}
	return info.PublicKey.Bytes
}

// path is how far a chain leads. Validity in time is the question of expiry,
// and plays no part in it.
type path struct {
	certificates []*x509.Certificate // the chain, and the given CA that issued its last
	anchor       *x509.Certificate   // the first of them that is a given CA, or nil
	problems     []device.Finding
}

// top is the name of who stands at the end.
func (p path) top() string {
	last := p.certificates[len(p.certificates)-1]
	return last.Issuer.String()
}

// trace follows a chain, leaf first, to one of the given CAs: each signature by
// the certificate that follows. A given CA is trusted because it was given, so
// it need not be self-signed.
func trace(certs, given []*x509.Certificate) path {
	p := path{certificates: slices.Clone(certs)}
	for i, c := range certs {
		p.problems = append(p.problems, signature(c)...)
		if i+1 < len(certs) {
			p.problems = append(p.problems, issuedBy(c, certs[i+1])...)
		}
		if p.anchor == nil && slices.ContainsFunc(given, c.Equal) {
			p.anchor = c
		}
	}
	if p.anchor != nil {
		return p
	}
	last := certs[len(certs)-1]
	var problems []device.Finding
	for _, ca := range given {
		if !bytes.Equal(ca.RawSubject, last.RawIssuer) {
			continue
		}
		problem := issuedBy(last, ca)
		if problem == nil { // another CA of that name need not be the one
			p.certificates, p.anchor = append(p.certificates, ca), ca
			return p
		}
		problems = problem
	}
	p.problems = append(p.problems, problems...)
	return p
}

// forgeable are the reasons of hashes that collisions can be made of.
var forgeable = map[string]device.Reason{"SHA1": signedSHA1, "MD5": signedMD5, "MD2": signedMD2}

// signature looks at what a certificate's signature says by itself: a hash that
// can be forged, and the signature of a certificate by its own key. A root's
// own signature may be by a weak hash: nothing relies on it.
func signature(c *x509.Certificate) []device.Finding {
	hash := weakHash(c)
	switch {
	case hash != "" && !selfSigned(c):
		return give(forgeable[hash], "%s is signed with %s, which can be forged", c.Subject, hash)
	case hash == "" && selfSigned(c):
		err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
		return signatureError(c, "itself", err)
	}
	return nil
}

// selfSigned reports whether c claims to be signed by its own key; one that has
// its own name as issuer may be signed by an older key of the same CA.
func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) &&
		(len(c.AuthorityKeyId) == 0 || len(c.SubjectKeyId) == 0 || bytes.Equal(c.AuthorityKeyId, c.SubjectKeyId))
}

var oidMD2WithRSA = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 2} // RFC 3279, section 2.2.1

// weakHash names the hash of c's signature if collisions of it can be made.
func weakHash(c *x509.Certificate) string {
	switch c.SignatureAlgorithm {
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1:
		return "SHA1"
	case x509.MD5WithRSA:
		return "MD5"
	case x509.UnknownSignatureAlgorithm: // MD2 is among those crypto/x509 does not know
		var outer struct {
			TBS       asn1.RawValue
			Algorithm pkix.AlgorithmIdentifier
			Signature asn1.BitString
		}
		if _, err := asn1.Unmarshal(c.Raw, &outer); err == nil && outer.Algorithm.Algorithm.Equal(oidMD2WithRSA) {
			return "MD2"
		}
	}
	return ""
}

// issuedBy returns what is wrong with c as issued by ca.
func issuedBy(c, ca *x509.Certificate) []device.Finding {
	if !bytes.Equal(c.RawIssuer, ca.RawSubject) {
		return give(chainBroken, "%s is issued by %s, but %s follows it", c.Subject, c.Issuer, ca.Subject)
	}
	return signatureError(c, ca.Subject.String(), c.CheckSignatureFrom(ca))
}

// signatureError is what an error of crypto/x509 on checking a signature means.
func signatureError(c *x509.Certificate, signer string, err error) []device.Finding {
	var weak x509.InsecureAlgorithmError
	var notCA x509.ConstraintViolationError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &weak):
		return nil // signature tells it
	case errors.As(err, &notCA):
		return give(issuerNotCA, "%s signed %s but is not entitled to sign certificates", signer, c.Subject)
	case errors.Is(err, x509.ErrUnsupportedAlgorithm):
		return give(signatureUnknown, "the signature of %s by %s is of an algorithm that cannot be checked", c.Subject, signer)
	}
	return give(signatureInvalid, "the signature of %s by %s does not verify: %v", c.Subject, signer, err)
}

// constraints lets crypto/x509 look at what a path as a whole has to keep to:
// name constraints, path length, policies, unknown critical extensions. The
// last certificate counts as trusted, and the time is one at which all were
// issued already.
func constraints(certs []*x509.Certificate) []device.Finding {
	if len(certs) == 1 {
		return nil
	}
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	options.Roots.AddCert(certs[len(certs)-1])
	for i, c := range certs {
		if i > 0 {
			options.Intermediates.AddCert(c)
		}
		if c.NotBefore.After(options.CurrentTime) {
			options.CurrentTime = c.NotBefore
		}
	}
	_, err := certs[0].Verify(options)
	var invalid x509.CertificateInvalidError
	if err == nil || errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return nil
	}
	return give(chainConstraint, "the chain breaks a rule of its own CAs: %v", err)
}

// issuerKey puts the questions about a key to that of a CA, and passes on what
// did not pass.
func issuerKey(ctx context.Context, ca *x509.Certificate, env *Env) []device.Finding {
	k := device.Key{Role: device.RoleCA, Public: ca.PublicKey, SPKI: ca.RawSubjectPublicKeyInfo}
	switch ca.PublicKey.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		k.Public = &device.OtherKey{Algorithm: ca.PublicKeyAlgorithm.String()}
	}
	var found []device.Finding
	for _, c := range OfNumbers {
		if !c.Applies(k) {
			continue
		}
		for _, f := range c.Run(ctx, k, env) {
			if f.Status == device.Pass || f.Status == device.NotApplicable {
				continue
			}
			f.Message = fmt.Sprintf("the key of the CA %s: %s", ca.Subject, f.Message)
			f.Citation = c.Cite
			found = append(found, f)
		}
	}
	return found
}
