package oci

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestSpec(t *testing.T) {
	for name, c := range map[string]struct {
		text           string
		ok             bool
		ownPID, userNS bool
		cgroupsPath    string
		annotations    int
	}{
		"empty object":                   {text: `{}`, ok: true},
		"own PID namespace":              {text: `{"linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]}}`, ok: true, ownPID: true},
		"another's PID namespace":        {text: `{"linux":{"namespaces":[{"type":"pid","path":"/proc/7/ns/pid"}]}}`, ok: true},
		"the host's PID namespace":       {text: `{"linux":{"namespaces":[{"type":"mount"}]}}`, ok: true},
		"no namespaces":                  {text: `{"linux":{"namespaces":null}}`, ok: true},
		"user namespace":                 {text: `{"linux":{"namespaces":[{"type":"user"}]}}`, ok: true, userNS: true},
		"another's user namespace":       {text: `{"linux":{"namespaces":[{"type":"user","path":"/proc/7/ns/user"}]}}`, ok: true, userNS: true},
		"cgroup and annotations":         {text: `{"annotations":{"a":"1","b":"2"},"linux":{"cgroupsPath":"/a/b"}}`, ok: true, cgroupsPath: "/a/b", annotations: 2},
		"what the shim does not know":    {text: `{"process":{"args":["a"]},"windows":{},"x":[{}]}`, ok: true},
		"no linux":                       {text: `{"linux":null,"annotations":null}`, ok: true},
		"empty":                          {text: ``},
		"half":                           {text: `{"linux":{"namesp`},
		"two":                            {text: `{} {}`},
		"an array":                       {text: `[]`},
		"namespaces that are no array":   {text: `{"linux":{"namespaces":{}}}`},
		"annotations that are no object": {text: `{"annotations":["a"]}`},
		"rubbish":                        {text: "\x00\xff"},
		"very deep":                      {text: strings.Repeat("[", 100000)},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBundle(t)
			put(t, b.Path("config.json"), c.text)
			s, err := b.ReadSpec()
			if (err == nil) != c.ok {
				t.Fatal(err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), b.Path("config.json")) {
					t.Errorf("the error does not name it: %v", err)
				}
				return
			}
			if s.OwnPIDNamespace() != c.ownPID || s.HasUserNamespace() != c.userNS || s.Linux.CgroupsPath != c.cgroupsPath || len(s.Annotations) != c.annotations {
				t.Errorf("%+v: own PID namespace %v, user namespace %v", s, s.OwnPIDNamespace(), s.HasUserNamespace())
			}
		})
	}
}

// It may have changed since the shim was started.
func TestSpecIsReadAsItIsNow(t *testing.T) {
	b := newBundle(t)
	for _, path := range []string{"/a", "/b"} {
		text, err := json.Marshal(specs.Spec{Linux: &specs.Linux{CgroupsPath: path, Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}}}})
		if err != nil {
			t.Fatal(err)
		}
		put(t, b.Path("config.json"), string(text))
		if s, err := b.ReadSpec(); err != nil || s.Linux.CgroupsPath != path || !s.OwnPIDNamespace() {
			t.Errorf("%+v, %v", s, err)
		}
	}
}

// Clients that pass no options say by the path alone that systemd is to make
// the cgroup; without that flag runc refuses such a path, with it any other.
func TestSystemdCgroup(t *testing.T) {
	booted, other := t.TempDir(), filepath.Join(t.TempDir(), "nothing")
	file := filepath.Join(t.TempDir(), "file")
	put(t, file, "")
	before := systemd
	defer func() { systemd = before }()
	for _, c := range []struct {
		path string
		want bool
	}{
		{"system.slice:cri-containerd:0123", true},
		{"kubepods-burstable-pod1.slice:cri-containerd:0123", true},
		{":docker:0123", true}, // the slice by default
		{"", false},
		{"/system.slice/0123", false},
		{"/a:b:c", false},
		{"a:b", false},
		{"a:b:c:d", false},
		{"a/b:c:d", false},
	} {
		s := Spec{}
		s.Linux.CgroupsPath = c.path
		for place, is := range map[string]bool{booted: c.want, other: false, file: false} {
			systemd = place
			if got := s.SystemdCgroup(); got != is {
				t.Errorf("%q on a host with %s: %v", c.path, place, got)
			}
		}
	}
	if _, err := os.Lstat(before); before != "/run/systemd/system" {
		t.Errorf("where systemd is looked for: %s, %v", before, err)
	}
}
