package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// sbom writes the CycloneDX document of the binary at path, which is said to be
// of version, from what the linker wrote into it. It has no serial number and no time: the same binary
// gives the same bytes.
func sbom(w io.Writer, path, version string, linked []module) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return err
	}
	if info.Main.Path != self {
		return fmt.Errorf("%s is of %s, not of %s", path, info.Main.Path, self)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	licences := make(map[string]string)
	for _, m := range linked {
		licences[m.Path] = m.Licence
	}
	main := component(cdx.ComponentTypeApplication, self, version, licences[self])
	main.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}}
	properties := []cdx.Property{}
	for _, s := range info.Settings {
		if strings.HasPrefix(s.Key, "GO") || s.Key == "CGO_ENABLED" {
			properties = append(properties, cdx.Property{Name: "go:" + s.Key, Value: s.Value})
		}
	}
	main.Properties = &properties

	goVersion, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	components := []cdx.Component{component(cdx.ComponentTypeLibrary, "std", goVersion, "BSD-3-Clause")}
	for _, d := range info.Deps {
		if licences[d.Path] == "" {
			return fmt.Errorf("%s: %s is linked, but not among the modules of %s", path, d.Path, device)
		}
		components = append(components, component(cdx.ComponentTypeLibrary, d.Path, d.Version, licences[d.Path]))
	}
	refs := []string{}
	for _, c := range components {
		refs = append(refs, c.BOMRef)
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Component: &main}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: main.BOMRef, Dependencies: &refs}}
	return cdx.NewBOMEncoder(w, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6)
}

func component(kind cdx.ComponentType, path, version, licence string) cdx.Component {
	purl := "pkg:golang/" + path
	if version != "" {
		purl += "@" + strings.ReplaceAll(version, "+", "%2B")
	}
	c := cdx.Component{BOMRef: purl, Type: kind, Name: path, Version: version, PackageURL: purl}
	if strings.Contains(licence, " ") {
		c.Licenses = &cdx.Licenses{{Expression: licence}}
	} else {
		c.Licenses = &cdx.Licenses{{License: &cdx.License{ID: licence}}}
	}
	return c
}
