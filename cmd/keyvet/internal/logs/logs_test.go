package logs

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// logTo has a service log to a file, of which the environment says stream.
func logTo(t *testing.T, stream func(*syscall.Stat_t) string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("JOURNAL_STREAM", stream(info.Sys().(*syscall.Stat_t)))
	log := slog.New(New(f, slog.LevelDebug))
	log.Debug("a")
	log.Info("b", "time", "of the day")
	log.Warn("c", "level", "DEBUG")
	log.Error("d")
	text, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestJournal(t *testing.T) {
	got := logTo(t, func(s *syscall.Stat_t) string { return fmt.Sprintf("%d:%d", s.Dev, s.Ino) })
	want := "<7>level=DEBUG msg=a\n<6>level=INFO msg=b time=\"of the day\"\n<4>level=WARN msg=c level=DEBUG\n<3>level=ERROR msg=d\n"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for _, other := range []string{"", "1:2", "nonsense"} {
		if got := logTo(t, func(*syscall.Stat_t) string { return other }); !strings.HasPrefix(got, "time=") || strings.Contains(got, "<") {
			t.Errorf("JOURNAL_STREAM=%s: %s", other, got)
		}
	}
}

func TestPerson(t *testing.T) {
	log := func(debug bool) string {
		var b bytes.Buffer
		log := slog.New(Person(&b, "keyvet", debug)).With("job", 7)
		log.Info("connected")
		log.Warn("finding", "status", "WARN")
		log.Warn("the key is\nunder the owner")
		log.Error("rotation", "step", "try", "error", errors.New("refused"))
		return b.String()
	}
	want := "keyvet: warning: the key is\uFFFDunder the owner (job 7)\nkeyvet: rotation: refused (job 7, step try)\n"
	if got := log(false); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := log(true); !strings.Contains(got, "keyvet: connected (job 7)\n") || !strings.Contains(got, "finding (job 7, status WARN)") {
		t.Error(got)
	}
}
