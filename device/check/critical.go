package check

import (
	"cmp"
	"crypto/x509"
	"strings"
)

// understoodExtensions are those that a certificate may have as critical: those that
// the checks keep to, and those that bound nothing that is asked here.
var understoodExtensions = map[string]string{
	"2.5.29.15": "keyUsage", "2.5.29.17": "subjectAltName", "2.5.29.19": "basicConstraints", "2.5.29.30": "nameConstraints", "2.5.29.37": "extKeyUsage",

	"2.5.29.14": "subjectKeyIdentifier", "2.5.29.35": "authorityKeyIdentifier", "2.5.29.9": "subjectDirectoryAttributes",
	"2.5.29.31": "cRLDistributionPoints", "2.5.29.46": "freshestCRL", "1.3.6.1.5.5.7.1.1": "authorityInfoAccess", "1.3.6.1.5.5.7.1.11": "subjectInfoAccess",
	"2.5.29.32": "certificatePolicies", "2.5.29.33": "policyMappings", "2.5.29.36": "policyConstraints", "2.5.29.54": "inhibitAnyPolicy", // no policy is asked for
	"1.3.6.1.5.5.7.48.1.5": "OCSP noCheck", "1.3.6.1.5.5.7.1.24": "TLS feature", "2.16.840.1.113730.1.1": "Netscape certificate type",
}

// otherExtensions have names to be told by.
var otherExtensions = map[string]string{
	"2.5.29.16": "privateKeyUsagePeriod", "2.5.29.18": "issuerAltName", "1.3.6.1.5.5.7.1.14": "proxyCertInfo",
	"1.3.6.1.5.5.7.1.7": "IP addresses of RFC 3779", "1.3.6.1.5.5.7.1.8": "AS numbers of RFC 3779", "1.3.6.1.4.1.11129.2.4.3": "precertificate poison",
	"2.23.133.5.4.1": "DICE TcbInfo", "2.23.133.5.4.2": "DICE Endorsement Manifest", "2.23.133.5.4.3": "DICE Endorsement Manifest URI", "2.23.133.5.4.4": "DICE Ueid",
	"2.23.133.5.4.5": "DICE MultiTcbInfo", "2.23.133.5.4.6": "DICE UCCS evidence", "2.23.133.5.4.7": "DICE manifest evidence", "2.23.133.5.4.8": "DICE MultiTcbInfo", "2.23.133.5.4.9": "DICE concept message wrapper",
	"1.3.6.1.4.1.11129.2.1.17": "Android key attestation", "1.3.6.1.4.1.4128.2100.1": "TrustZone attestation",
}

// unknownExtensions names the critical extensions of c that are not understood: a
// verifier must not rely on such a certificate (RFC 5280, section 4.2), and
// cannot say that it is bad.
func unknownExtensions(c *x509.Certificate) string {
	var names []string
	for _, e := range c.Extensions {
		id := e.Id.String()
		name, known := understoodExtensions[id]
		if e.Id.Equal(oidSubjectAltName) {
			if _, err := generalNames(e.Value); err != nil {
				name, known = "malformed subjectAltName", false
			}
		}
		if !e.Critical || known {
			continue
		}
		if name = cmp.Or(name, otherExtensions[id]); name != "" {
			id += " (" + name + ")"
		}
		names = append(names, id)
	}
	return strings.Join(names, ", ")
}
