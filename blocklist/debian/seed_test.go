package debian

import "testing"

func TestSeedNames(t *testing.T) {
	for a := LE32; a <= BE32; a++ {
		if got, err := ParseArch(a.String()); err != nil || got != a {
			t.Errorf("ParseArch(%q) = %v, %v", a, got, err)
		}
	}
	for v := Rnd; v <= SSH; v++ {
		if got, err := ParseVariant(v.String()); err != nil || got != v {
			t.Errorf("ParseVariant(%q) = %v, %v", v, got, err)
		}
	}
	if _, err := ParseArch("be64"); err == nil {
		t.Error("be64 is an architecture")
	}
	if _, err := ParseVariant(""); err == nil {
		t.Error("nothing is a variant")
	}
	if got := (Seed{LE32, Rnd, 4096}).String(); got != "le32 rnd pid 4096" {
		t.Error(got)
	}
	if got := (Seed{7, 8, 9}).String(); got != "Arch(7) Variant(8) pid 9" {
		t.Error(got)
	}
}

func TestPack(t *testing.T) {
	for _, tt := range []struct {
		seed   Seed
		packed uint32
	}{
		{Seed{}, 0},
		{Seed{LE32, Rnd, MaxPID}, 0x7fff},
		{Seed{LE32, NoReadRnd, 0}, 0x8000},
		{Seed{LE64, SSH, 1}, 0x38001},
		{Seed{BE32, SSH, MaxPID}, 0x5ffff},
	} {
		if got := tt.seed.Pack(); got != tt.packed {
			t.Errorf("%v packs to %#x, want %#x", tt.seed, got, tt.packed)
		}
		if got, err := UnpackSeed(tt.packed); err != nil || got != tt.seed {
			t.Errorf("UnpackSeed(%#x) = %v, %v", tt.packed, got, err)
		}
	}
}

func FuzzUnpackSeed(f *testing.F) {
	for _, packed := range []uint32{0, 0x8000, 0x5ffff, 0x60000, 1 << SeedBits, 1<<32 - 1} {
		f.Add(packed)
	}
	f.Fuzz(func(t *testing.T, packed uint32) {
		seed, err := UnpackSeed(packed)
		if (err == nil) != (packed < 3<<17) {
			t.Fatalf("UnpackSeed(%#x) = %v, %v", packed, seed, err)
		}
		if err == nil && (seed.check() != nil || seed.Pack() != packed) {
			t.Fatalf("UnpackSeed(%#x) = %v, which packs to %#x", packed, seed, seed.Pack())
		}
	})
}
