package mqtt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// maxPacket bounds an inbound packet: payload, topic and headers. MQTT allows
// 256 MB at the server's word.
const maxPacket = MaxPayload + 1<<10

// readPacket reads one control packet of bounded length that makes sense on its own.
func readPacket(r io.Reader) (packets.ControlPacket, error) {
	header, length, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	if length > maxPacket && header[0]>>4 == packets.Publish {
		return skipPublish(r, header[0], length)
	}
	raw, err := readFrame(r, header, length)
	if err != nil {
		return nil, err
	}
	p, err := packets.ReadPacket(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("malformed packet: %w", err)
	}
	switch p := p.(type) {
	case *packets.ConnackPacket:
		if len(raw) != 4 {
			return nil, errors.New("CONNACK of a wrong length")
		}
	case *packets.SubackPacket:
		if len(p.ReturnCodes) != 1 { // a SUBSCRIBE of ours has one filter
			return nil, errors.New("SUBACK of a wrong length")
		}
	case *packets.PublishPacket:
		if p.Qos > 1 {
			return nil, errors.New("PUBLISH of a QoS that was not asked for")
		}
	}
	return p, nil
}

// readHeader reads the fixed header of one control packet (MQTT 3.1.1, section
// 2.2), which gives the length of the rest.
func readHeader(r io.Reader) (header []byte, length int, err error) {
	header = make([]byte, 1, 8)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, 0, err
	}
	for shift := 0; ; shift += 7 {
		if shift > 21 {
			return nil, 0, errors.New("malformed packet length")
		}
		var b [1]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil, 0, noEOF(err)
		}
		header = append(header, b[0])
		length |= int(b[0]&0x7f) << shift
		if b[0]&0x80 == 0 {
			return header, length, nil
		}
	}
}

// readFrame reads the rest of a control packet, and gives all of it.
func readFrame(r io.Reader, header []byte, length int) ([]byte, error) {
	if length > maxPacket {
		return nil, fmt.Errorf("packet of %d bytes is too large", length)
	}
	packet := append(header, make([]byte, length)...)
	if _, err := io.ReadFull(r, packet[len(header):]); err != nil {
		return nil, noEOF(err)
	}
	return packet, nil
}

// oversized is a PUBLISH beyond maxPacket, without its payload. It does not end
// the session: a broker that keeps it would begin the next one with it, for ever.
type oversized struct {
	*packets.PublishPacket
	bytes int
}

// skipPublish reads the rest of such a PUBLISH (MQTT 3.1.1, section 3.3) and keeps
// what the acknowledgement needs.
func skipPublish(r io.Reader, first byte, length int) (packets.ControlPacket, error) {
	rest := io.LimitReader(r, int64(length)).(*io.LimitedReader)
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos = first >> 1 & 3
	if p.Qos > 1 {
		return nil, errors.New("PUBLISH of a QoS that was not asked for")
	}
	var n [2]byte
	_, err := io.ReadFull(rest, n[:])
	topic := make([]byte, binary.BigEndian.Uint16(n[:]))
	if err == nil {
		_, err = io.ReadFull(rest, topic)
	}
	if err == nil && p.Qos == 1 {
		_, err = io.ReadFull(rest, n[:])
		p.MessageID = binary.BigEndian.Uint16(n[:])
	}
	if err == nil {
		_, err = io.Copy(io.Discard, rest)
	}
	if err == nil && rest.N > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, noEOF(err)
	}
	p.TopicName = string(topic)
	return &oversized{p, length}, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
