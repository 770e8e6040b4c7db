package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/blocklist"
	"github.com/keyvet/keyvet/blocklist/debian"
	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/internal/terminal"
)

const compromisedCode = "KEYVET_COMPROMISED_KEY"

func build(flags *flag.FlagSet) cli.Action {
	out := flags.String("out", "", "write the list to `FILE`")
	data := flags.String("data", "", "fingerprints in `DIR`, as generate writes them; every key is made again and compared. EC sets need none")
	names := flags.String("sets", "", "the sets that go in, `NAME,...` (default rsa2048,rsa2048-ssh,rsa4096,p256,p384, or none with a list of your own)")
	spki := flags.String("spki-sha256", "", "keys that you know to be compromised, in `FILE`: SHA-256 in hex of the DER SubjectPublicKeyInfo and, if you like, a name, one a line, # for comments")
	var published namedKeys
	flags.StringVar(&published.file, "keys", "", "keys whose private half is public, in `FILE`, one a line with tabs between: SHA-256 in hex of the DER SubjectPublicKeyInfo, algorithm, name, source, class, SHA-256 in hex of the number (RSA: modulus; EC: x) or nothing")
	flags.StringVar(&published.classes, "classes", "", "of -keys, only those of these classes, `CLASS,...`")
	flags.StringVar(&published.by, "by", "number", "find a key of -keys by its `number` where it has one, or by both: number and SubjectPublicKeyInfo (default number)")
	set := flags.String("set", "published-keys", "the `NAME` of the set of -keys (default published-keys)")
	licence := flags.String("licence", "", "licence of the data of -keys, as `TEXT`")
	from := flags.String("from", "", "take over the sets of these lists, `FILE,...`")
	title := flags.String("name", "compromised keys", "what the findings call the list, as `TEXT` (default \"compromised keys\")")
	cite := flags.String("cite", "", "where people find out more of the list: a `URL`, which the findings cite")
	reason := flags.String("reason", compromisedCode, "reason `CODE` of the finding (default "+compromisedCode+")")
	openssl := flags.String("openssl-blacklist", "", "a `FILE` of Debian's package openssl-blacklist")
	return action(func(ctx context.Context, s cli.IO, args []string) error {
		if *out == "" {
			return errUsage{errors.New("build: -out FILE is needed")}
		}
		if *spki != "" && published.file != "" {
			return errUsage{errors.New("build: -name and -cite are for one of -spki-sha256 and -keys: make two lists, and one of both with -from")}
		}
		if err := needed(flags, published.file != "", *spki != ""); err != nil {
			return errUsage{err}
		}
		own := blocklist.Set{Name: *set, Kind: blocklist.Named, Title: *title, Cite: *cite, Reason: *reason, Licence: *licence}
		if *spki != "" {
			own = blocklist.Set{Name: "compromised", Kind: blocklist.Compromised, Title: *title, Cite: *cite, Reason: *reason}
		}
		if err := own.CheckWords(); err != nil {
			return errUsage{fmt.Errorf("build: %w", err)}
		}
		if *names == "" && *spki == "" && *openssl == "" && published.file == "" && *from == "" {
			*names = "rsa2048,rsa2048-ssh,rsa4096,p256,p384"
		}
		var wanted []kind
		if *names != "" {
			for name := range strings.SplitSeq(*names, ",") {
				k, err := kindNamed(name)
				if err == nil && slices.ContainsFunc(wanted, func(other kind) bool { return other.name == name }) {
					err = fmt.Errorf("%s is named twice", name)
				}
				if err == nil && k.curve == nil && *data == "" {
					err = fmt.Errorf("set %s needs -data DIR", name)
				}
				if err != nil {
					return errUsage{fmt.Errorf("build: -sets: %w", err)}
				}
				wanted = append(wanted, k)
			}
		}

		sources, err := debianSources(ctx, wanted, *data, s.Err)
		if err != nil {
			return err
		}
		if *spki != "" {
			fingerprints, names, err := readFingerprints(*spki, 32, true)
			if err != nil {
				return err
			}
			sources = append(sources, blocklist.Source{Fingerprints: fingerprints, Names: names, Set: own})
		}
		if *openssl != "" {
			fingerprints, _, err := readFingerprints(*openssl, 10, false)
			if err != nil {
				return err
			}
			sources = append(sources, blocklist.Source{Fingerprints: fingerprints, Set: blocklist.Set{
				Name: "openssl-blacklist", Kind: blocklist.OpenSSLBlacklist,
				Title: "openssl-blacklist, 80 bits of SHA-1", Reason: "CERTIFICATE_KEY_VULNERABILITY_CVE-2008-0166",
			}})
		}
		if published.file != "" {
			keys, err := published.read()
			if err != nil {
				return err
			}
			sources = append(sources, blocklist.Source{Named: keys, Deflate: deflate, Set: own})
		}
		if *from != "" {
			for name := range strings.SplitSeq(*from, ",") {
				list, err := openList(name)
				if err != nil {
					return err
				}
				defer list.Close()
				sources = append(sources, list.Sources()...)
			}
		}
		list, err := blocklist.Build(sources)
		if err != nil {
			return err
		}
		if err := writeFile(*out, list); err != nil {
			return err
		}
		keys := 0
		written, err := openList(*out)
		if err != nil {
			return err
		}
		defer written.Close()
		for _, set := range written.Sets() {
			keys += set.Keys
		}
		say(s.Err, "%s: %s, %s, %s", *out, terminal.Count(len(written.Sets()), "set", "sets"), terminal.Count(keys, "key", "keys"), terminal.Count(written.Bytes(), "byte", "bytes"))
		return nil
	})
}

// needed refuses flags that say something of keys which no flag names.
func needed(flags *flag.FlagSet, published, own bool) (err error) {
	flags.Visit(func(f *flag.Flag) {
		switch {
		case slices.Contains([]string{"classes", "by", "set", "licence"}, f.Name) && !published:
			err = fmt.Errorf("build: -%s is about the keys of -keys FILE, which is missing", f.Name)
		case slices.Contains([]string{"name", "cite", "reason"}, f.Name) && !published && !own:
			err = fmt.Errorf("build: -%s is about the keys of -keys FILE or -spki-sha256 FILE, which is missing", f.Name)
		}
	})
	return err
}

// debianSources makes the keys of the sets: with the help of a folder's files,
// or of EC sets that it has no file of, from nothing.
func debianSources(ctx context.Context, wanted []kind, data string, stderr io.Writer) ([]blocklist.Source, error) {
	f := &folder{}
	if data != "" {
		var err error
		if f, err = openFolder(data); err != nil {
			return nil, err
		}
	}
	var sources []blocklist.Source
	total := 0
	for _, k := range wanted {
		source := blocklist.Source{Set: k.set()}
		there, missing := f.origins(k)
		switch {
		case len(there) > 0 && len(missing) > 0:
			say(stderr, "%s has no files of %s for %v: the set will not cover them", f.dir, k.name, missing)
		case len(there) == 0 && k.curve == nil:
			return nil, fmt.Errorf("%s: %s names no file of set %s", f.dir, sumsName, k.name)
		case len(there) == 0:
			there = k.origins()
		}
		source.Origins = there
		total += len(there) * rowsPerFile
		sources = append(sources, source)
	}
	p := newProgress(stderr, total)
	defer p.end()
	for i, k := range wanted {
		source := &sources[i]
		add := func(key weakKey) {
			source.Keys = append(source.Keys, blocklist.Key{ID: blocklist.NewKeyID(key.number), Seed: key.seed})
			if k.curve == nil {
				source.Candidates = max(source.Candidates, key.failed.BeforeP+1)
			}
		}
		for _, o := range source.Origins {
			made := debian.Generate(ctx, debian.Seeds(o.Arch, o.Variant, 0, debian.MaxPID), k.generate)
			if _, ok := f.sums[k.file(o)]; ok {
				made = f.keys(ctx, k, o)
			}
			for key, err := range made {
				if err != nil {
					return nil, err
				}
				add(key)
				p.step(k.name + " " + o.String())
			}
		}
	}
	return sources, nil
}
