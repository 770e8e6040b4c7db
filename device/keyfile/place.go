package keyfile

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/keyvet/keyvet/device"
)

// placeOf returns where the file at path lies, without links; nil if that cannot
// be found out.
func placeOf(path string, info fs.FileInfo) *device.Place {
	stat, known := info.Sys().(*syscall.Stat_t)
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if !known || err != nil {
		return nil
	}
	p := &device.Place{Owner: int(stat.Uid)}
	for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return nil
		}
		stat, known := info.Sys().(*syscall.Stat_t)
		if !known {
			return nil
		}
		p.Dirs = append(p.Dirs, device.Dir{Path: dir, Owner: int(stat.Uid), Mode: info.Mode()})
		if dir == filepath.Dir(dir) {
			return p
		}
	}
}
