package main

import (
	"bytes"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMain runs where main is meant to: at the module's root.
func TestMain(m *testing.M) {
	if err := os.Chdir("../.."); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// TestRecipe fails when go.mod has moved on and the recipe has not.
func TestRecipe(t *testing.T) {
	linked, err := linkedModules(device)
	if err != nil {
		t.Fatal(err)
	}
	files, err := recipeFiles(linked)
	if err != nil {
		t.Fatal(err)
	}
	if names := stale(recipeDir, files); len(names) > 0 {
		t.Errorf("%v in %s: stale; run: go run ./packaging/bill yocto", names, recipeDir)
	}
	for name, want := range map[string]string{
		"keyvet-go-mods.inc":  "gomod://github.com/google/go-tpm;version=v",
		"keyvet-licenses.inc": "file://pkg/mod/github.com/!burnt!sushi/toml@v",
	} {
		if !strings.Contains(string(files[name]), want) {
			t.Errorf("%s: no %s in\n%s", name, want, files[name])
		}
	}

	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if names := stale(dir, files); len(names) > 0 {
		t.Errorf("%v: fresh, and called stale", names)
	}
	old := bytes.Replace(files["keyvet-go-mods.inc"], []byte("version=v"), []byte("version=v1"), 1)
	if err := os.WriteFile(filepath.Join(dir, "keyvet-go-mods.inc"), old, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "keyvet-licenses.inc")); err != nil {
		t.Fatal(err)
	}
	if names := stale(dir, files); len(names) != 2 {
		t.Errorf("one file is old and one is gone, called stale: %v", names)
	}
}

// TestSBOM compares with what the go command tells of the same binary.
func TestSBOM(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "keyvet")
	if _, err := goCommand([]string{"GOARCH=riscv64"}, "build", "-tags", "keyvet_noblocklist", "-o", binary, device); err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	for _, w := range []*bytes.Buffer{&first, &second} {
		if err := run([]string{"sbom", binary, "1.2.3"}, w); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two documents of one binary differ")
	}
	var doc struct {
		BOMFormat string
		Metadata  struct {
			Component struct{ Name, Version string }
		}
		Components []struct {
			Name, Version, PURL string
			Licenses            []any
		}
	}
	if err := json.Unmarshal(first.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if c := doc.Metadata.Component; doc.BOMFormat != "CycloneDX" || c.Name != self || c.Version != "1.2.3" {
		t.Errorf("%s of %s %s", doc.BOMFormat, c.Name, c.Version)
	}
	var got []string
	for _, c := range doc.Components {
		if len(c.Licenses) != 1 {
			t.Errorf("%s: licences %v", c.Name, c.Licenses)
		}
		if c.Name != "std" {
			got = append(got, c.Name+" "+c.Version)
		}
	}
	out, err := exec.Command("go", "version", "-m", binary).Output()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "dep" {
			want = append(want, f[1]+" "+f[2])
		}
	}
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("components\n%v\nwant\n%v", got, want)
	}

	if err := run([]string{"sbom", os.Args[0], "1"}, &first); err == nil {
		t.Error("a binary of another package has more linked than keyvet, and a document")
	}
}

func TestCopyright(t *testing.T) {
	var out bytes.Buffer
	if err := run([]string{"copyright"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Copyright 2009 The Go Authors", "Apache License", "Eclipse Distribution License", "==== github.com/BurntSushi/toml: COPYING"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q", want)
		}
	}
}

func TestLicence(t *testing.T) {
	ours, err := os.ReadFile("LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, want string }{
		{string(ours), "Apache-2.0"},
		{"Redistribution and use in source and binary forms, with or without\n modification, are permitted", "BSD-2-Clause"},
		{"Redistribution and use in source and binary forms, with or without modification … the names of its\ncontributors may be used to endorse or promote products", "BSD-3-Clause"},
		{"Permission is hereby granted, free of charge, to any person obtaining a copy", ""}, // half of MIT
		{"All rights reserved.", ""},
		{"", ""},
	} {
		if got := licence(c.text); got != c.want {
			t.Errorf("licence(%.40q) = %q, want %q", c.text, got, c.want)
		}
	}
	if _, err := licenceFiles(t.TempDir()); err == nil {
		t.Error("a folder without a licence has one")
	}
}

func TestEscape(t *testing.T) {
	for plain, escaped := range map[string]string{"github.com/BurntSushi/toml": "github.com/!burnt!sushi/toml", "golang.org/x/sys": "golang.org/x/sys"} {
		if escape(plain) != escaped || unescape(escaped) != plain {
			t.Errorf("%s: %s, and back %s", plain, escape(plain), unescape(escaped))
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"nonsense"}, {"sbom"}, {"sbom", "/nonexistent", "1"}, {"copyright", "x"}, {"yocto", "-C", "/nonexistent"}, {"yocto", "-x"}} {
		if err := run(args, new(bytes.Buffer)); err == nil {
			t.Errorf("bill %v: no error", args)
		}
	}
}

// TestLayer holds the recipe to the tree where only a build would tell.
func TestLayer(t *testing.T) {
	recipe, err := os.ReadFile(filepath.Join(recipeDir, "keyvet_git.bb"))
	if err != nil {
		t.Fatal(err)
	}
	licence, err := os.ReadFile("LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("${GO_IMPORT}/LICENSE;md5=%x\"", md5.Sum(licence)); !strings.Contains(string(recipe), want) {
		t.Errorf("recipe: no %s", want)
	}
	var named []string
	for _, m := range regexp.MustCompile(`\$src/(\S+)`).FindAllStringSubmatch(string(recipe), -1) {
		if !strings.Contains(m[1], "$") {
			named = append(named, m[1])
		}
	}
	if len(named) < 4 {
		t.Errorf("the recipe installs only %v", named)
	}
	for _, name := range named {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("the recipe installs it: %v", err)
		}
	}
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	set := regexp.MustCompile(`-X [^=]+=`).FindAllString(string(makefile), -1)
	if len(set) < 3 {
		t.Errorf("the Makefile sets only %v", set)
	}
	const flags = "cmd/keyvet/build.flags"
	for _, word := range append(set, flags, `s/^ldflags //p`, `s/^gcflags /-gcflags=/p`) {
		if !strings.Contains(string(makefile), word) || !strings.Contains(strings.ReplaceAll(string(recipe), "${GO_IMPORT}", self), word) {
			t.Errorf("Makefile and recipe do not both build with %s", word)
		}
	}
	nfpm, err := os.ReadFile("packaging/nfpm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	units, err := filepath.Glob("packaging/systemd/keyvet*.[spt][ea]*") // service, path, target
	if err != nil || len(units) != 6 {
		t.Fatalf("units: %v %v", units, err)
	}
	for _, unit := range units {
		if name := filepath.Base(unit); !strings.Contains(string(recipe), name) || !strings.Contains(string(nfpm), name) {
			t.Errorf("%s is in the recipe: %t, in the packages: %t", name, strings.Contains(string(recipe), name), strings.Contains(string(nfpm), name))
		}
	}
	lists, err := filepath.Glob("blocklist/*.kvf")
	if err != nil || len(lists) != 3 {
		t.Fatalf("lists: %v %v", lists, err)
	}
	for _, list := range lists {
		name := filepath.Base(list)
		if name == "embedded.kvf" { // the recipe can leave it out of the binary
			name = "debian.kvf"
		} else if want := fmt.Sprintf("{src: %s, dst: /usr/share/keyvet/%s,", list, name); !strings.Contains(string(nfpm), want) {
			t.Errorf("the packages have no %s", list)
		}
		for _, want := range []string{
			fmt.Sprintf("$src/%s ${D}${datadir}/keyvet/%s\n", list, name), fmt.Sprintf(" = \"${datadir}/keyvet/%s\"\n", name),
		} {
			if !strings.Contains(string(recipe), want) {
				t.Errorf("the recipe has no %q", want)
			}
		}
	}
	release, err := os.ReadFile("packaging/release")
	if err != nil {
		t.Fatal(err)
	}
	others, err := os.ReadFile("packaging/nfpm-tools.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range tools {
		name := filepath.Base(tool)
		for _, want := range []string{
			"/usr/bin/" + name + ",", "/usr/share/man/man1/" + name + ".1.gz,", "/usr/share/bash-completion/completions/" + name + ",",
			"/usr/share/zsh/site-functions/_" + name + ",", "/usr/share/fish/vendor_completions.d/" + name + ".fish,",
		} {
			if !strings.Contains(string(others), want) {
				t.Errorf("the package of the tools has no %s", want)
			}
		}
		if !strings.Contains(string(release), name) {
			t.Errorf("packaging/release does not know %s", name)
		}
	}
	for _, page := range []string{"keyvet.1", "keyvet.toml.5"} { // those of the other programs are in a package of their own
		section := page[len(page)-1:]
		for text, want := range map[string]string{
			string(recipe):  fmt.Sprintf("$src/docs/man/%s ${D}${mandir}/man%s/%s\n", page, section, page),
			string(nfpm):    fmt.Sprintf("${STAGE}/%s.gz\", dst: /usr/share/man/man%s/%s.gz,", page, section, page),
			string(release): " " + page,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in: %.40s…", want, text)
			}
		}
	}
}
