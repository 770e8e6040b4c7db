package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/keyvet/keyvet/blocklist"
	"github.com/keyvet/keyvet/blocklist/debian"
	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/internal/terminal"
	"github.com/keyvet/keyvet/device/durable"
)

func generate(flags *flag.FlagSet) cli.Action {
	name := flags.String("set", "", "the set `NAME`")
	out := flags.String("out", "", "write into `DIR`")
	only := flags.String("origins", "", "only these `ORIGINS`, as le32-rnd: an architecture (le32, le64, be32) and a variant (rnd, noreadrnd, nornd)")
	part := flags.String("shard", "", "only the `I`-th of N parts, as 3/64, for N machines that share DIR or copy into it what they make; a run without -shard makes files of all parts")
	return action(func(ctx context.Context, s cli.IO, args []string) error {
		if *name == "" || *out == "" {
			return errUsage{errors.New("generate: -set NAME and -out DIR are needed")}
		}
		k, err := kindNamed(*name)
		if err != nil {
			return errUsage{fmt.Errorf("generate: -set: %w", err)}
		}
		origins := k.origins()
		if *only != "" {
			if origins, err = k.parseOrigins(*only); err != nil {
				return errUsage{fmt.Errorf("generate: -origins: %w", err)}
			}
		}
		mine, err := parseShard(*part)
		if err != nil {
			return errUsage{fmt.Errorf("generate: -shard: %w", err)}
		}
		if err := os.MkdirAll(*out, 0o755); err != nil {
			return err
		}
		f, err := openFolder(*out)
		if errors.Is(err, fs.ErrNotExist) {
			f, err = &folder{*out, make(map[string]string)}, nil
		}
		if err != nil {
			return err
		}
		p := newProgress(s.Err, len(origins)*rowsPerFile/mine.of)
		defer p.end()
		for i, o := range origins {
			if err := f.generate(ctx, k, o, mine.from(i), p); err != nil {
				return err
			}
		}
		p.end()
		next := fmt.Sprintf("`keyvet-blocklist build -data %s -sets %s -out FILE` makes a list of them", *out, k.name)
		made := fmt.Sprintf("the keys of %s are there, of %d of %s", k.name, len(origins), terminal.Count(len(k.origins()), "origin", "origins"))
		if mine.of > 1 {
			made = fmt.Sprintf("part %s of the keys of %s is there", *part, k.name)
			next = "once all parts are there, the same command without -shard joins them"
		}
		say(s.Err, "%s: %s; %s", *out, made, next)
		return nil
	})
}

// shard is one of several parts of a set: every of-th chunk from number on.
type shard struct{ number, of int }

// parseShard reads "3/64", where the first is 1; "" is the whole.
func parseShard(text string) (s shard, err error) {
	if text == "" {
		return shard{0, 1}, nil
	}
	number, of, _ := strings.Cut(text, "/")
	if s.number, err = strconv.Atoi(number); err == nil {
		s.of, err = strconv.Atoi(of)
	}
	if err != nil || s.number < 1 || s.number > s.of || s.of > rowsPerFile/chunkRows {
		return s, fmt.Errorf("%q is not I/N with 1 <= I <= N <= %d", text, rowsPerFile/chunkRows)
	}
	s.number--
	return s, nil
}

// from is the shard of the i-th origin: where the chunks do not divide by the
// number of shards, each has more of some origin.
func (s shard) from(i int) shard { return shard{(s.number + i) % s.of, s.of} }

// parseOrigins reads "le32-rnd,be32-nornd".
func (k kind) parseOrigins(text string) (some []blocklist.Origin, err error) {
	for word := range strings.SplitSeq(text, ",") {
		i := slices.IndexFunc(k.origins(), func(o blocklist.Origin) bool { return o.String() == word })
		if i < 0 {
			return nil, fmt.Errorf("set %s has no %q, only %v", k.name, word, k.origins())
		}
		some = append(some, k.origins()[i])
	}
	return some, nil
}

// Keys are made in chunks of this many, each a file of its own until all are
// there, so that an interrupted run goes on where it was.
const chunkRows = 256

// generate makes the file of one origin, unless it is there, or only a shard of
// its chunks.
func (f *folder) generate(ctx context.Context, k kind, o blocklist.Origin, s shard, p *progress) error {
	name := k.file(o)
	path := filepath.Join(f.dir, name)
	if _, ok := f.sums[name]; ok {
		if _, err := f.rows(k, o); err != nil {
			return fmt.Errorf("%w; remove it and its line in %s to have it made again", err, sumsName)
		}
		p.skip(rowsPerFile / s.of)
		return nil
	}
	var all []byte
	var chunks []string
	for first := 0; first < rowsPerFile; first += chunkRows {
		if first/chunkRows%s.of != s.number {
			continue
		}
		chunk := fmt.Sprintf("%s.%05d.part", path, first)
		chunks = append(chunks, chunk)
		rows, err := durable.ReadBounded(chunk, int64(chunkRows*k.rowBytes()))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if rows, err = k.chunk(ctx, o, uint16(first), p); err != nil {
				return err
			}
			if err := writeFile(chunk, rows); err != nil {
				return err
			}
		case err != nil:
			return err
		case len(rows) != chunkRows*k.rowBytes():
			return fmt.Errorf("%s: %d bytes, want %d; remove it to have it made again", chunk, len(rows), chunkRows*k.rowBytes())
		default:
			p.skip(chunkRows)
		}
		all = append(all, rows...)
	}
	if s.of > 1 {
		return nil
	}
	if err := writeFile(path, all); err != nil {
		return err
	}
	if err := f.add(name, all); err != nil {
		return err
	}
	for _, of := range []string{name, sumsName} { // what a run that was killed had begun to write
		begun, _ := filepath.Glob(filepath.Join(f.dir, "."+of+".*")) // none in a folder whose name is no pattern: they do no harm
		chunks = append(chunks, begun...)
	}
	for _, chunk := range chunks {
		if err := os.Remove(chunk); err != nil {
			return err
		}
	}
	return nil
}

// chunk makes the rows of chunkRows process ids.
func (k kind) chunk(ctx context.Context, o blocklist.Origin, first uint16, p *progress) (rows []byte, err error) {
	for key, err := range debian.Generate(ctx, debian.Seeds(o.Arch, o.Variant, first, first+chunkRows-1), k.generate) {
		if err != nil {
			return nil, err
		}
		row, err := k.row(key)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row...)
		p.step(k.name + " " + o.String())
	}
	return rows, nil
}
