package keyfile

import (
	"errors"
	"slices"
)

const maxDepth = 32 // of elements in each other; a certificate has about ten

// toDER returns the BER element that ber begins with as DER, and what follows
// it: lengths are definite and short, strings in one piece, TRUE is ff, integers
// have no padding (X.690, sections 8, 10 and 11). What primitive strings hold
// stays as it is, and so does the order of sets.
func toDER(ber []byte) (der, rest []byte, err error) {
	tag, content, rest, err := readBER(ber, 0)
	if err != nil {
		return nil, nil, err
	}
	return appendDER(nil, tag, content), rest, nil
}

// readBER returns tag and content of the first element of b, the content as DER.
func readBER(b []byte, depth int) (tag byte, content, rest []byte, err error) {
	if depth > maxDepth {
		return 0, nil, nil, errors.New("BER that is nested too deeply")
	}
	tag, length, body, err := header(b)
	if err != nil {
		return 0, nil, nil, err
	}
	if length >= 0 {
		body, rest = body[:length], body[length:]
	}
	if tag&0x20 == 0 {
		if length < 0 {
			return 0, nil, nil, errors.New("damaged BER: a value of indefinite length")
		}
		return tag, primitive(tag, body), rest, nil
	}
	join := isString(tag)
	for first := true; ; first = false {
		if len(body) == 0 {
			if length < 0 {
				return 0, nil, nil, errors.New("truncated BER: its end is missing")
			}
			break
		}
		if length < 0 && len(body) >= 2 && body[0] == 0 && body[1] == 0 {
			rest = body[2:]
			break
		}
		var t byte
		var part []byte
		if t, part, body, err = readBER(body, depth+1); err != nil {
			return 0, nil, nil, err
		}
		switch {
		case !join:
			content = appendDER(content, t, part)
		case t != tag&^0x20:
			return 0, nil, nil, errors.New("damaged BER: a string in pieces of another type")
		case t == 3 && !first && len(part) > 0: // BIT STRING: the last piece says how many bits are unused
			content[0] = part[0]
			content = append(content, part[1:]...)
		default:
			content = append(content, part...)
		}
	}
	if join {
		tag &^= 0x20
	}
	return tag, content, rest, nil
}

// header returns tag and length of the first element of b, -1 for an indefinite
// length, and what follows them: no less than the length.
func header(b []byte) (tag byte, length int, rest []byte, err error) {
	truncated := errors.New("truncated BER: it ends within an element")
	if len(b) < 2 {
		return 0, 0, nil, truncated
	}
	tag, length, rest = b[0], int(b[1]), b[2:]
	switch {
	case tag == 0 || tag&0x1f == 0x1f:
		return 0, 0, nil, errors.New("damaged BER: no tag of X.509")
	case length == 0x80:
		return tag, -1, rest, nil
	case length > 0x80:
		n := length & 0x7f
		if len(rest) < n {
			return 0, 0, nil, truncated
		}
		length = 0
		for _, digit := range rest[:n] {
			if length = length<<8 | int(digit); length > maxFileBytes {
				return 0, 0, nil, truncated
			}
		}
		rest = rest[n:]
	}
	if len(rest) < length {
		return 0, 0, nil, truncated
	}
	return tag, length, rest, nil
}

// isString reports whether a constructed element of that tag is a string in pieces.
func isString(tag byte) bool {
	switch tag &^ 0x20 {
	case 3, 4, 12, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 30:
		return true
	}
	return false
}

// primitive is the content of a primitive element as DER has it.
func primitive(tag byte, content []byte) []byte {
	switch {
	case tag == 1 && len(content) == 1 && content[0] != 0: // BOOLEAN
		return []byte{0xff}
	case tag == 2 || tag == 10: // INTEGER, ENUMERATED
		for len(content) > 1 && (content[0] == 0 && content[1] < 0x80 || content[0] == 0xff && content[1] >= 0x80) {
			content = content[1:]
		}
	case tag == 3 && len(content) > 1 && content[0] > 0 && content[0] < 8: // BIT STRING
		content = slices.Clone(content)
		content[len(content)-1] &= 0xff << content[0]
	}
	return content
}

func appendDER(out []byte, tag byte, content []byte) []byte {
	out = append(out, tag)
	switch n := len(content); {
	case n < 0x80:
		out = append(out, byte(n))
	case n < 1<<8:
		out = append(out, 0x81, byte(n))
	case n < 1<<16:
		out = append(out, 0x82, byte(n>>8), byte(n))
	default:
		out = append(out, 0x83, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(out, content...)
}
