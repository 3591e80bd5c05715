package integration

// What containerd's own shim gets wrong, and this one must not. Those that are
// traps of the protocol too are among the traps: Wait, Delete and Shutdown back
// to back (14), the second start and the wait of an exec that failed to start
// (16, 17), a connection that is dropped in the middle of Create (36).

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// CRI and moby send these to every runtime that is not called runc; a client may
// send what this shim does not know. Stock fails: it takes runc's only.
func TestCreateTakesOptionsOfOtherTypes(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte("stdio = 'copy'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string]*anypb.Any{
		"none":           {},
		"body":           packed(t, &runtimeoptions.Options{TypeUrl: "io.containerd.cleat.v1.options", ConfigBody: []byte("stdio = 'copy'\n")}),
		"path":           packed(t, &runtimeoptions.Options{ConfigPath: file}),
		"old-name":       {TypeUrl: "containerd.runtimeoptions.v1.Options"},
		"somebody-elses": packed(t, durationpb.New(1)),
	} {
		m := l.prepare("options-" + name)
		m.request.Options = options
		m.boot()
		m.run().end()
	}
}

// Any part of standard IO can be asked for. Stock fails: stdout without stderr,
// or the other way round, is an error.
func TestStandardIOInParts(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	host := l.member("parts").run()
	script := []string{"sh", "-c", "read word; echo out $word; echo err $word >&2; exit 3"}
	for mask := range 8 {
		name := fmt.Sprint("parts-", mask)
		m := l.member(name, args(script...))
		r := host.execRequest(name, script...)
		check := map[string]func(){}
		word := ""
		if mask&1 != 0 {
			word = "word"
			for who, stdin := range map[string]*string{"container": &m.request.Stdin, "exec": &r.Stdin} {
				in := newFIFO(t)
				*stdin = in.path
				written := make(chan error, 1)
				go func() { written <- os.WriteFile(in.path, []byte("word\n"), 0) }() // waits for the shim to open it
				check[who+"'s input"] = func() {
					if err := <-written; err != nil {
						t.Error(err)
					}
				}
			}
		}
		for what, field := range map[string]*string{"out": &m.request.Stdout, "err": &m.request.Stderr, "out of exec": &r.Stdout, "err of exec": &r.Stderr} {
			stream := what[:3]
			if stream == "out" && mask&2 == 0 || stream == "err" && mask&4 == 0 {
				continue
			}
			tap := newTap(t)
			*field = tap.path
			check[what] = func() {
				if got, want := strings.TrimSpace(tap.all()), strings.TrimSpace(stream+" "+word); got != want {
					t.Errorf("%s: std%s is %q, want %q", name, what, got, want)
				}
			}
		}
		m.run()
		host.add(r)
		host.start(name)
		for _, status := range []int{m.wait(""), host.wait(name)} {
			if status != 3 {
				t.Errorf("%s ended with %d, want 3", name, status)
			}
		}
		for _, c := range check {
			c()
		}
		host.delete(name)
		m.finish()
	}
	host.end()
}

// A terminal's output can go to a file, or nowhere. Stock fails both.
func TestTerminalWithAFileOrNoOutput(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	host := l.member("tty").run()
	file := filepath.Join(t.TempDir(), "logs", "tty.log") // the folder is made
	for _, stdout := range []string{"file://" + file, ""} {
		m := l.member(fmt.Sprint("tty-", stdout == ""), args("sh", "-c", "tty && exit 4"), func(s *specs.Spec) { s.Process.Terminal = true })
		m.request.Terminal, m.request.Stdout = true, stdout
		m.run()
		r := host.execRequest(m.id, "sh", "-c", "tty && exit 5")
		r.Terminal, r.Stdout = true, stdout
		host.add(r)
		host.start(m.id)
		if a, b := m.wait(""), host.wait(m.id); a != 4 || b != 5 {
			t.Errorf("with output to %q a container and an exec ended with %d and %d, want 4 and 5", stdout, a, b)
		}
		host.delete(m.id)
		m.finish()
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "/dev/pts/"); n != 2 {
		t.Errorf("the file holds %q", text)
	}
	host.end()
}
