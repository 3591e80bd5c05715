package stdio

import (
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
)

func TestURIsAreTakenApartStrictly(t *testing.T) {
	args := func(a ...string) []string { return a }
	for _, c := range []struct {
		uri  string
		want target
		bad  bool
	}{
		{uri: "", want: target{}},

		// A bare path is taken as it is: clients that make FIFOs in folders of
		// any name do not escape.
		{uri: "/run/fifo", want: target{kind: fifo, path: "/run/fifo"}},
		{uri: "/a b/100%/q?x#y", want: target{kind: fifo, path: "/a b/100%/q?x#y"}},
		{uri: "//double", want: target{kind: fifo, path: "//double"}},
		{uri: "/\x01\x7f\xff", want: target{kind: fifo, path: "/\x01\x7f\xff"}},
		{uri: "/zero\x00byte", bad: true},
		{uri: "relative", bad: true},
		{uri: "./relative", bad: true},

		{uri: "fifo:///run/fifo", want: target{kind: fifo, path: "/run/fifo"}},
		{uri: "fifo:/run/fifo", want: target{kind: fifo, path: "/run/fifo"}},
		{uri: "fifo:///a%20b%25", want: target{kind: fifo, path: "/a b%"}},
		{uri: "fifo:relative", bad: true},
		{uri: "fifo://host/path", bad: true},
		{uri: "fifo://", bad: true},
		{uri: "fifo:///run/fifo?query=1", bad: true},
		{uri: "fifo:///run/fifo#fragment", bad: true},
		{uri: "fifo:///bad%zzescape", bad: true},
		{uri: "fifo:///zero%00byte", bad: true},

		{uri: "file:///var/log/x", want: target{kind: file, path: "/var/log/x"}},
		{uri: "FILE:///var/log/x", want: target{kind: file, path: "/var/log/x"}},
		{uri: "file:///var/log/%2e%2e/x", want: target{kind: file, path: "/var/log/../x"}},
		{uri: "file://localhost/var/log/x", bad: true},
		{uri: "file://user@/x", bad: true},
		{uri: "file:///x?append=no", bad: true},
		{uri: "file:x", bad: true},
		{uri: "file://", bad: true},

		{uri: "binary:///bin/logger", want: target{kind: binary, path: "/bin/logger"}},
		{uri: "binary:///bin/logger?", want: target{kind: binary, path: "/bin/logger"}},
		{uri: "binary:///bin/logger?a", want: target{kind: binary, path: "/bin/logger", args: args("a", "")}},
		{uri: "binary:///bin/logger?a=", want: target{kind: binary, path: "/bin/logger", args: args("a", "")}},
		{uri: "binary:///bin/logger?&&a=1&", want: target{kind: binary, path: "/bin/logger", args: args("a", "1")}},
		// Stock passes them on in random order, and the first of each key only.
		{uri: "binary:///bin/logger?z=1&a=2&z=3&z=1", want: target{kind: binary, path: "/bin/logger", args: args("z", "1", "a", "2", "z", "3", "z", "1")}},
		{uri: "binary:///bin/logger?a=b=c&%3d=%26+%2B", want: target{kind: binary, path: "/bin/logger", args: args("a", "b=c", "=", "& +")}},
		{uri: "binary:///bin/logger?a;b", bad: true},
		{uri: "binary:///bin/logger?a=%zz", bad: true},
		{uri: "binary:///bin/logger?%00", bad: true},
		{uri: "binary:///bin/logger#x", bad: true},
		{uri: "binary://bin/logger", bad: true},
		{uri: "binary:logger", bad: true},

		{uri: "binary-v2:///bin/logger?a=1", want: target{kind: binaryV2, path: "/bin/logger", args: args("a", "1")}},
		{uri: "binary-v3:///bin/logger", bad: true},

		{uri: "npipe:////./pipe/x", bad: true},
		{uri: "ttrpc+unix:///run/s?streaming_id=1", bad: true},
		{uri: "http://host/x", bad: true},
		{uri: ":", bad: true},
		{uri: "file:///x\n", bad: true},
	} {
		got, err := parse("stdout", c.uri)
		switch {
		case c.bad && !errdefs.IsInvalidArgument(err):
			t.Errorf("%q: %+v and error %v, want an invalid argument", c.uri, got, err)
		case !c.bad && (err != nil || !reflect.DeepEqual(got, c.want)):
			t.Errorf("%q: %+v and error %v, want %+v", c.uri, got, err, c.want)
		}
	}
}
