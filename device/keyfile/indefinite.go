package keyfile

import "errors"

// maxNested bounds how deep BER may nest: PKCS#7 needs about ten levels.
const maxNested = 32

var errBER = errors.New("damaged BER of indefinite length")

// definite returns the first element of b with every length made definite, as
// in DER (X.690, sections 8.1.3 and 10.1), and what follows it. Java, Firefox
// and OpenSSL's streams write indefinite lengths. What has none stays as it is.
func definite(b []byte) (der, rest []byte, err error) {
	der, rest, _, err = definiteAt(b, 0)
	return der, rest, err
}

func definiteAt(b []byte, depth int) (der, rest []byte, changed bool, err error) {
	tag, header, length, indefinite, err := readHeader(b)
	if err != nil || depth > maxNested {
		return nil, nil, false, errBER
	}
	constructed := b[0]&0x20 != 0
	switch {
	case indefinite && !constructed:
		return nil, nil, false, errBER
	case indefinite:
		var inner []byte
		for rest = b[header:]; !isEnd(rest); {
			var part []byte
			if part, rest, _, err = definiteAt(rest, depth+1); err != nil {
				return nil, nil, false, err
			}
			inner = append(inner, part...)
		}
		return element(tag, inner), rest[2:], true, nil
	}
	whole, rest := b[:header+length], b[header+length:]
	if !constructed {
		return whole, rest, false, nil
	}
	var inner []byte
	for content := whole[header:]; len(content) > 0; {
		part, after, partChanged, err := definiteAt(content, depth+1)
		if err != nil {
			return nil, nil, false, err
		}
		inner, content, changed = append(inner, part...), after, changed || partChanged
	}
	if !changed {
		return whole, rest, false, nil
	}
	return element(tag, inner), rest, true, nil
}

// isEnd reports whether b begins with the two zeros that end an indefinite length.
func isEnd(b []byte) bool { return len(b) >= 2 && b[0] == 0 && b[1] == 0 }

// readHeader reads the tag and the length of an element that lies within b;
// header is how many bytes both have.
func readHeader(b []byte) (tag []byte, header, length int, indefinite bool, err error) {
	if len(b) > 0 {
		header = 1
		if b[0]&0x1f == 0x1f { // a tag of several bytes
			for header < len(b) && b[header]&0x80 != 0 {
				header++
			}
			header++
		}
	}
	if header == 0 || header >= len(b) {
		return nil, 0, 0, false, errBER
	}
	tag = b[:header]
	first, n := b[header], 0
	header++
	switch {
	case first == 0x80:
		return tag, header, 0, true, nil
	case first < 0x80:
		length = int(first)
	default:
		n = int(first & 0x7f)
		if n > 4 || len(b)-header < n {
			return nil, 0, 0, false, errBER
		}
		for _, d := range b[header : header+n] {
			length = length<<8 | int(d)
		}
	}
	header += n
	if length < 0 || length > len(b)-header {
		return nil, 0, 0, false, errBER
	}
	return tag, header, length, false, nil
}

// element is the DER element of a tag and its content.
func element(tag, content []byte) []byte {
	der := append([]byte(nil), tag...)
	n := len(content)
	switch {
	case n < 0x80:
		der = append(der, byte(n))
	case n < 1<<8:
		der = append(der, 0x81, byte(n))
	case n < 1<<16:
		der = append(der, 0x82, byte(n>>8), byte(n))
	case n < 1<<24:
		der = append(der, 0x83, byte(n>>16), byte(n>>8), byte(n))
	default:
		der = append(der, 0x84, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(der, content...)
}
