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
	"strings"

	"github.com/keyvet/keyvet/blocklist"
	"github.com/keyvet/keyvet/blocklist/debian"
	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device/durable"
)

func generate(flags *flag.FlagSet) cli.Action {
	name := flags.String("set", "", "the set `NAME`")
	out := flags.String("out", "", "write into `DIR`")
	only := flags.String("origins", "", "only these `ORIGINS`, as le32-rnd: an architecture (le32, le64, be32) and a variant (rnd, noreadrnd, nornd)")
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
		p := newProgress(s.Err, len(origins)*rowsPerFile)
		defer p.end()
		for _, o := range origins {
			if err := f.generate(ctx, k, o, p); err != nil {
				return err
			}
		}
		return nil
	})
}

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

// generate makes the file of one origin, unless it is there.
func (f *folder) generate(ctx context.Context, k kind, o blocklist.Origin, p *progress) error {
	name := k.file(o)
	path := filepath.Join(f.dir, name)
	if _, ok := f.sums[name]; ok {
		if _, err := f.rows(k, o); err != nil {
			return fmt.Errorf("%w; remove it and its line in %s to have it made again", err, sumsName)
		}
		p.skip(rowsPerFile)
		return nil
	}
	var all []byte
	var chunks []string
	for first := 0; first < rowsPerFile; first += chunkRows {
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
	if err := writeFile(path, all); err != nil {
		return err
	}
	if err := f.add(name, all); err != nil {
		return err
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
