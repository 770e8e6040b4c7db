// Command corpora puts the checks of keyvet to public collections of strange
// certificates and keys, and prints where OpenSSL judges otherwise:
//
//	go run ./packaging/corpora DIR [CORPUS ...]
//
// DIR is what the program fetch beside it fills; without a CORPUS all are
// compared: zlint, limbo, wycheproof, signatures and mozilla. Where the two differ, and why, is in docs/corpora.md. It fails if
// a check panics, where keyvet calls CRITICAL what OpenSSL takes, and where it calls a signature good or bad that is not.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
	"github.com/keyvet/keyvet/device/keyfile"
)

func main() {
	flag.Parse()
	scratch, err := os.MkdirTemp("", "corpora")
	if err == nil {
		defer os.RemoveAll(scratch)
		err = run(flag.Args(), &comparison{openssl: openssl{scratch}})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "corpora:", err)
		os.Exit(1)
	}
}

var all = []struct {
	name    string
	compare func(dir string, c *comparison) error
}{{"zlint", zlint}, {"limbo", limbo}, {"wycheproof", wycheproof}, {"signatures", signatures}, {"mozilla", mozilla}}

func run(args []string, c *comparison) error {
	if len(args) == 0 {
		return errors.New("which directory? make corpora says bin/.corpora")
	}
	for _, corpus := range all {
		if len(args) > 1 && !slices.Contains(args[1:], corpus.name) {
			continue
		}
		if err := corpus.compare(args[0], c); err != nil {
			return err
		}
	}
	c.print()
	if c.wrong > 0 {
		return fmt.Errorf("%d panics and false alarms", c.wrong)
	}
	return nil
}

// comparison collects where keyvet and OpenSSL differ.
type comparison struct {
	openssl openssl

	mu      sync.Mutex // guards the rest
	corpora []string
	objects map[string]int
	differ  []difference
	wrong   int // panics, and CRITICAL where OpenSSL sees nothing
}

type difference struct{ corpus, name, keyvet, openssl string }

// each calls compare with the numbers below n, several at a time: most of it is
// the start of programs.
func each(n int, compare func(i int)) {
	var all sync.WaitGroup
	places := make(chan struct{}, 8)
	for i := range n {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			compare(i)
		})
	}
	all.Wait()
}

// object counts one more thing that was compared.
func (c *comparison) object(corpus string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.corpora, corpus) {
		c.corpora = append(c.corpora, corpus)
	}
	if c.objects == nil {
		c.objects = make(map[string]int)
	}
	c.objects[corpus]++
}

func (c *comparison) add(corpus, name, keyvet, openssl string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.differ = append(c.differ, difference{corpus, name, keyvet, openssl})
}

// alarm counts what must not be.
func (c *comparison) alarm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong++
}

func (c *comparison) print() {
	slices.SortStableFunc(c.differ, func(a, b difference) int {
		return cmp.Or(cmp.Compare(slices.Index(c.corpora, a.corpus), slices.Index(c.corpora, b.corpus)), strings.Compare(a.name, b.name))
	})
	fmt.Print("| corpus | compared | differ |\n|---|---|---|\n")
	for _, corpus := range c.corpora {
		n := 0
		for _, d := range c.differ {
			if d.corpus == corpus {
				n++
			}
		}
		fmt.Printf("| %s | %d | %d |\n", corpus, c.objects[corpus], n)
	}
	fmt.Print("\n| where | keyvet | OpenSSL |\n|---|---|---|\n")
	for _, d := range c.differ {
		fmt.Printf("| %s %s | %s | %s |\n", d.corpus, d.name, cell(d.keyvet), cell(d.openssl))
	}
}

func cell(s string) string { return strings.NewReplacer("|", "/", "\n", " ").Replace(s) }

// judge reads a file and asks all checks of what is in it.
func (c *comparison) judge(corpus, name string, data []byte, env check.Env) (keys []device.Key, gaps []device.Gap, found []device.Finding) {
	defer func() {
		if p := recover(); p != nil {
			c.alarm()
			c.add(corpus, name, fmt.Sprintf("panic: %v %s", p, debug.Stack()), "")
		}
	}()
	keys, gaps = keyfile.ReadFrom(strings.NewReader(string(data)), name)
	return keys, gaps, check.OfKeys(context.Background(), keys, &env)
}

// certificate compares what is read of one certificate in PEM, and holds an alarm
// of keyvet against OpenSSL.
func (c *comparison) certificate(corpus, name string, data []byte) {
	c.object(corpus)
	keys, gaps, found := c.judge(corpus, name, data, check.Env{Now: time.Now()})
	ours := "reads it"
	if len(keys) != 1 || keys[0].Leaf() == nil {
		ours = "does not read it"
		for _, k := range keys {
			ours += ": " + k.CertificateError
		}
		for _, g := range gaps {
			ours += ": " + g.Why
		}
	}
	theirs, err := c.openssl.certificate(data)
	switch {
	case (err == nil) != (ours == "reads it"):
		opinion := "reads it"
		if err != nil {
			opinion = err.Error()
		} else if len(keys) == 1 && keys[0].Encoding != "" {
			ours += ", and warns: " + keys[0].Encoding
		}
		c.add(corpus, name, ours, opinion)
	case err == nil:
		leaf := keys[0].Leaf()
		own := facts{leaf.SerialNumber.Text(16), leaf.NotBefore.Truncate(time.Second).UTC(), leaf.NotAfter.Truncate(time.Second).UTC()}
		if own != theirs {
			c.add(corpus, name, fmt.Sprint(own), fmt.Sprint(theirs))
		}
	}
	for _, f := range found {
		if f.Severity != device.Critical {
			continue
		}
		opinion := c.openssl.selfSigned(data)
		if f.ReasonCode == "KEYVET_CERTIFICATE_SIGNATURE_INVALID" && opinion == nil {
			c.alarm()
		}
		if f.ReasonCode != "KEYVET_CERTIFICATE_SIGNATURE_INVALID" || opinion == nil {
			c.add(corpus, name, fmt.Sprintf("CRITICAL %s: %s", f.ReasonCode, f.Message), fmt.Sprint(opinion))
		}
	}
}

// zlint is the test data of zlint: a certificate a file.
func zlint(dir string, c *comparison) error {
	root := filepath.Join(dir, "zlint", "v3", "testdata")
	var names []string
	var all [][]byte
	err := filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, block := range certificates(data) {
			names, all = append(names, filepath.Base(name)), append(all, block)
		}
		return nil
	})
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%s holds no certificates: fill it by packaging/corpora/fetch", root)
	}
	each(len(all), func(i int) { c.certificate("zlint", names[i], all[i]) })
	return err
}

// mozilla is the bundle of CA certificates of Debian.
func mozilla(_ string, c *comparison) error {
	data, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		return err
	}
	all := certificates(data)
	each(len(all), func(i int) { c.certificate("Mozilla", fmt.Sprintf("#%d", i+1), all[i]) })
	return nil
}
