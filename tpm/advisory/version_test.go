package advisory

import "testing"

func TestFirmwareVersion(t *testing.T) {
	for _, c := range []struct {
		manufacturer string
		v1, v2       uint32
		want         string
	}{
		{"IFX", 0x0007003d, 0x000ae100, "7.61.2785.0"},
		{"IFX", 0x00070055, 0x0011cb02, "7.85.4555.2"},
		{"STM", 0x0047000c, 0x12345678, "71.12"},
		{"NTC", 0x00070002, 0x00000002, "7.2.0.2"},
		{"INTC", 0x000b0008, 0x00320d62, "11.8.50.3426"},
		{"AMD", 0x00030037, 0x00000005, "3.55.0.5"},
		{"XXXX", 0xffffffff, 0xffffffff, "65535.65535.65535.65535"},
		{"", 0, 0, "0.0.0.0"},
	} {
		if got := FirmwareVersion(c.manufacturer, uint64(c.v1)<<32|uint64(c.v2)); got != c.want {
			t.Errorf("%s %#x %#x: %s, want %s", c.manufacturer, c.v1, c.v2, got, c.want)
		}
	}
}
