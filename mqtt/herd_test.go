package mqtt

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

var plot = flag.String("plot", "", "file to draw the herd into, as SVG")

const (
	fleet    = 100_000
	quota    = 500              // CONNECTs a second that an account may send to a region
	stepTime = 10 * time.Second // until a device gives up on a service that says nothing
	watched  = 20 * time.Minute
)

// waiting is what a device of the simulation knows.
type waiting interface {
	failed(failing)
	lost(lasted time.Duration)
	wait() time.Duration
}

// doubling is the back-off that is often advised: full jitter up to 1 s·2^n,
// 128 s at most.
type doubling struct{ failures int }

func (b *doubling) failed(failing)     { b.failures++ }
func (b *doubling) lost(time.Duration) { b.failures = 1 }
func (b *doubling) wait() time.Duration {
	return rand.N(min(128*time.Second, time.Second<<min(b.failures-1, 7)))
}

// outage is one way in which a region fails and is back at time 0.
type outage struct {
	name string
	long time.Duration
	how  failing       // near: names do not resolve, no device gets as far as the service
	mute bool          // connections hang, instead of being refused at once
	boot time.Duration // the devices lost their power, too, and start within this time from 0
}

// attempt is a device's next try.
type attempt struct {
	at     time.Duration
	device waiting
}

// simulate lets a fleet come back and counts the CONNECTs of each second from
// 0 on, and when the last device was back. The service takes as many a second
// as the quota and refuses the others, which come again.
func simulate(o outage, device func() waiting) (connects []int, back time.Duration) {
	connects = make([]int, watched/time.Second)
	seconds := make([][]attempt, (o.long+watched)/time.Second) // of the outage, too
	later := func(a attempt) {
		if second := int((a.at + o.long) / time.Second); second < len(seconds) {
			seconds[second] = append(seconds[second], a)
		} else {
			back = watched
		}
	}
	for range fleet {
		d := device()
		if o.boot > 0 {
			later(attempt{rand.N(o.boot), d})
			continue
		}
		d.lost(time.Hour)
		later(attempt{d.wait() - o.long, d})
	}
	for second := range seconds {
		taken := 0
		for i := 0; i < len(seconds[second]); i++ { // which may grow
			a := seconds[second][i]
			switch {
			case a.at < 0:
				a.device.failed(o.how)
				if o.mute {
					a.at += stepTime
				}
			case taken < quota:
				connects[a.at/time.Second]++
				taken++
				back = max(back, a.at)
				continue
			default:
				connects[a.at/time.Second]++
				a.device.failed(answered)
			}
			a.at += a.device.wait()
			later(a)
		}
		seconds[second] = nil
	}
	return connects, back
}

var outages = []outage{
	{name: "every connection is cut at once"},
	{name: "out for 20 s", long: 20 * time.Second},
	{name: "out for a minute, mute", long: time.Minute, mute: true},
	{name: "out for ten minutes", long: 10 * time.Minute},
	{name: "out for an hour, mute", long: time.Hour, mute: true},
	{name: "no name for half an hour", long: 30 * time.Minute, how: near},
	{name: "nobody there for ten minutes", long: 10 * time.Minute, how: near},
	{name: "not trusted for an hour", long: time.Hour, how: untrusted},
	{name: "power comes back", boot: 30 * time.Second},
}

// 100,000 devices that come back to a region together stay under the account's
// quota from the second minute on, and are all back after ten. By the doubling
// that is often advised they do not: the simulation can tell.
func TestHerd(t *testing.T) {
	var curves []curve
	for _, o := range outages {
		connects, back := simulate(o, func() waiting { return new(backoff) })
		most := busiest(connects[60:])
		t.Logf("%-32s at most %d CONNECTs a second after the first minute, all back after %v", o.name, most, back.Round(time.Second))
		if most >= quota {
			t.Errorf("%s: %d CONNECTs a second after the first minute", o.name, most)
		}
		if back > 10*time.Minute {
			t.Errorf("%s: the last device is back after %v", o.name, back)
		}
		curves = append(curves, curve{o.name, connects})
	}
	for _, o := range []outage{outages[0], outages[4]} {
		connects, back := simulate(o, func() waiting { return new(doubling) })
		most := busiest(connects[60:])
		t.Logf("doubling to 128 s: %s: at most %d, all back after %v", o.name, most, back.Round(time.Second))
		if most < 2*quota {
			t.Errorf("doubling to 128 s, %s: %d a second: then why another back-off?", o.name, most)
		}
		curves = append(curves, curve{"doubling to 128 s: " + o.name, connects})
	}
	if *plot != "" {
		if err := os.WriteFile(*plot, draw([]curve{curves[0], curves[4], curves[5], curves[7], curves[8]}), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	drawn, err := os.ReadFile("../docs/herd.svg")
	if err != nil || !strings.Contains(string(drawn), windows()) {
		t.Errorf("docs/herd.svg was drawn of other windows than %s: docs/herd.md tells how it is made: %v", windows(), err)
	}
}

func busiest(connects []int) int {
	most := 0
	for _, n := range connects {
		most = max(most, n)
	}
	return most
}

// windows names the back-off that a plot was made of.
func windows() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v and", ConnectSpacing)
	for n := 1; n <= quickTries+1; n++ {
		least, most := (&backoff{failures: n, since: time.Now()}).window()
		fmt.Fprintf(&b, " %d-%v", least, most)
	}
	return b.String()
}

type curve struct {
	name     string
	connects []int // by second
}

// draw shows the curves over ten minutes, CONNECTs a second on a logarithmic scale.
func draw(curves []curve) []byte {
	const left, top, width, height, seconds, decades = 70, 50, 860, 400, 600, 5
	x := func(second float64) float64 { return left + second/seconds*width }
	y := func(n float64) float64 { return top + height - math.Log10(max(n, 1))/decades*height }
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 %d" font-family="sans-serif" font-size="13">
<desc>windows: %s</desc>
<rect width="100%%" height="100%%" fill="white"/>
<text x="%d" y="24" font-size="16">CONNECTs a second of 100,000 devices after an outage</text>
`, top+height+50+20*len(curves), windows(), left)
	for decade := range decades + 1 {
		at := y(math.Pow10(decade))
		fmt.Fprintf(&b, `<path d="M%d %.1fh%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.0f</text>`+"\n", left, at, width, left-8, at+4, math.Pow10(decade))
	}
	for minute := range seconds/60 + 1 {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d min</text>`+"\n", x(float64(60*minute)), top+height+20, minute)
	}
	fmt.Fprintf(&b, `<path d="M%d %.1fh%d" stroke="black" stroke-dasharray="6 4"/><text x="%d" y="%.1f" text-anchor="end">the account's quota: %d</text>`+"\n",
		left, y(quota), width, left+width-4, y(quota)-6, quota)
	fmt.Fprintf(&b, `<path d="M%.1f %dv%d" stroke="black" stroke-dasharray="2 4"/>`+"\n", x(60), top, height)
	for i, c := range curves {
		colour := []string{"#1b7837", "#2166ac", "#00a0a0", "#d6604d", "#b2182b"}[i%5]
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="1.3" points="`, colour)
		for second, n := range c.connects[:seconds] {
			fmt.Fprintf(&b, "%.1f,%.1f ", x(float64(second)+0.5), y(float64(n)))
		}
		at := top + height + 48 + 20*i
		fmt.Fprintf(&b, `"/><path d="M%d %dh24" stroke="%s" stroke-width="3"/><text x="%d" y="%d">%s</text>`+"\n", left, at-4, colour, left+32, at, c.name)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
