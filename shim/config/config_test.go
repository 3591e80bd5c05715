package config

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cleatrun/cleat/shim/options"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// everything is a file with every key.
const everything = `
runtime = "crun"
group = "annotation:example.com/team"
socket_dir = "/run/cleat"
stdio = "copy"
annotations = ["stdio"]

[logs]
policy = "spill"
limit = "64m"
dir = "/var/spool/cleat"

[limits]
operation = "1s"
launch = "2s"
checkpoint = "3s"
control = "4s"
console = "5s"
drain = "6s"
exec_hold = "7s"
kill = "8s"

[runtimes.crun]
path = "/usr/bin/crun"
args = ["--debug"]
root = "/run/crun"
env = { A = "1" }
systemd_cgroup = true
log_format = "text"
signals = "runtime"
processes = "elsewhere"
`

// useFile makes text the administrator's file.
func useFile(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(options.FileVariable, path)
	return path
}

func TestEveryKeyIsRead(t *testing.T) {
	useFile(t, everything)
	said, err := Read(options.Message{})
	if err != nil {
		t.Fatal(err)
	}
	// The keys in JSON, as the daemon gets them, are those of the file.
	data, err := json.Marshal(said.File)
	if err != nil {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"runtime": "crun", "group": "annotation:example.com/team", "socket_dir": "/run/cleat", "stdio": "copy",
		"annotations": []any{"stdio"},
		"logs":        map[string]any{"policy": "spill", "limit": "64m", "dir": "/var/spool/cleat"},
		"limits": map[string]any{"operation": "1s", "launch": "2s", "checkpoint": "3s", "control": "4s",
			"console": "5s", "drain": "6s", "exec_hold": "7s", "kill": "8s"},
		"runtimes": map[string]any{"crun": map[string]any{"path": "/usr/bin/crun", "args": []any{"--debug"}, "root": "/run/crun",
			"env": map[string]any{"A": "1"}, "systemd_cgroup": true, "log_format": "text", "signals": "runtime", "processes": "elsewhere"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	for _, key := range Keys(new(options.Config)) {
		if last := key[strings.LastIndexByte(key, '.')+1:]; !strings.Contains(everything, last+" = ") {
			t.Errorf("the test does not set %s", key)
		}
	}
}

func TestWhatIsWrongInAFileIsNamedWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"stdio = 'copy'\n[runtimes.crun]\npth = '/x'": `line 3: unknown key "runtimes.crun.pth", the closest known one is "runtimes.NAME.path"`,
		"drain = '2s'":                       `line 1: unknown key "drain", the closest known one is "limits.drain"`,
		"\n[limit]\ndrain = '2s'":            `line 2: unknown key "limit", the closest known one is "limits"`,
		"[runtimes.a]\nsystemdcgroup = true": `line 2: unknown key "runtimes.a.systemdcgroup", the closest known one is "runtimes.NAME.systemd_cgroup"`,
		"SystemdCgroup = true":               `line 1: unknown key "SystemdCgroup"`,
		"[runtimes.a.b]\nx = 1":              `line 1: unknown key "runtimes.a.b"`,
		"what":                               `line 1: expected '='`,
		"stdio = 'copy'\nstdio = 'copy'":     `line 2: stdio: key stdio is already defined`,
		"\nstdio = 'both'":                   `line 2: stdio: "both" is not one of auto, direct, copy`,
		"group = 'annotation:'":              `line 1: group: "annotation:" is not one of pod, container, namespace, annotation:KEY`,
		"annotations = ['all']":              `line 1: annotations: "all" is not one of drain-limit, stdio`,
		"[logs]\npolicy = 'keep'":            `line 2: logs.policy: "keep" is not one of block, spill, drop`,
		"[logs]\nlimit = 'much'":             `line 2: logs.limit: "much" is not a size such as 64k, 10m or 1g`,
		"[limits]\ndrain = '-2s'":            `line 2: limits.drain: "-2s" is not a duration such as 2s`,
		"[limits]\nlaunch = 'soon'":          `line 2: limits.launch: "soon" is not a duration such as 2s`,
		"socket_dir = 'run'":                 `line 1: socket_dir: "run" is not an absolute path`,
		"[runtimes.a]\npath = './a'":         `line 2: runtimes.a.path: "./a" is neither a name nor an absolute path`,
		"[runtimes.a]\nsystemd_cgroup = 'y'": `line 2: runtimes.a.systemd_cgroup: it cannot be of the type string`,
		"[runtimes.a]\nargs = [1]":           `line 2: runtimes.a.args: it cannot be of the type integer`,
		"runtimes = 'crun'":                  `line 1: runtimes: it cannot be of the type string`,
		"[runtimes.'a/b']":                   `it is not the name of a runtime`,
		"[runtimes.a.env]\n'A=B' = ''":       `"A=B" is not the name of a variable`,
		"runtime = '/usr/bin/crun'":          `it names a runtime, whose path is in [runtimes.NAME]`,
		"\n\nstdio = 4\nruntime = 'x'":       `line 3: stdio: "4" is not one of auto, direct, copy`,
		"[limits]\ndrain = 2\n":              `line 2: drain: "2" is not a duration such as 2s`,
		"[limits]\nkill = true":              `line 2: kill: "true" is not a duration such as 2s`,
		"stdio = 1.5":                        `line 1: stdio: "1.5" is not one of`,
		"\xff = 1":                           `line 1`,
	} {
		path := useFile(t, text)
		_, err := Read(options.Message{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") || !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
}

func TestAFileThatCannotBeReadIsAnErrorThatNamesIt(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, bytes.Repeat([]byte("#\n"), maxFile/2+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file",
		dir:                        "is not a file",
		fifo:                       "is not a file",
		large:                      "is larger than",
		"config.toml":              "is not an absolute path",
	} {
		t.Setenv(options.FileVariable, path)
		if _, err := Read(options.Message{}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestAFileIsReadByWayOfALink(t *testing.T) {
	path := useFile(t, "stdio = 'copy'")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	t.Setenv(options.FileVariable, link)
	if said, err := Read(options.Message{}); err != nil || said.File.Stdio.String() != "copy" {
		t.Errorf("%+v, %v", said, err)
	}
}

func message(t *testing.T, m proto.Message) options.Message {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return options.Message{TypeURL: a.TypeUrl, Value: a.Value}
}

// CRI hands over the table of a handler's options, in which runc's names are
// used; others name a file.
func TestClientsSayItInTOML(t *testing.T) {
	path := useFile(t, "BinaryName = 'one'\nRoot = '/file'\nstdio = 'copy'\n[runtimes.two]\nargs = ['--file']")
	t.Setenv(options.FileVariable, "")
	for _, c := range []struct {
		name string
		m    *runtimeoptions.Options
		want string
	}{
		{"body", &runtimeoptions.Options{TypeUrl: "x", ConfigBody: []byte("BinaryName = 'crun'\nSystemdCgroup = true\nTypeUrl = 'x'\nConfigPath = ''\nIoUid = 7")},
			`{"runc":{"BinaryName":"crun","SystemdCgroup":true,"IoUid":7}}`},
		{"path", &runtimeoptions.Options{ConfigPath: path},
			`{"stdio":"copy","runc":{"BinaryName":"one","Root":"/file"},"runtimes":{"two":{"args":["--file"]}}}`},
		{"both", &runtimeoptions.Options{ConfigPath: path, ConfigBody: []byte("BinaryName = 'two'\n[runtimes.two]\nroot = '/body'")},
			`{"stdio":"copy","runc":{"BinaryName":"two","Root":"/file"},"runtimes":{"two":{"args":["--file"],"root":"/body"}}}`},
		{"neither", &runtimeoptions.Options{TypeUrl: "x"}, `{}`},
	} {
		var want options.Config
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(err)
		}
		got, err := Client(message(t, c.m))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
	runc, err := Client(message(t, &runcoptions.Options{BinaryName: "crun"}))
	if err != nil || runc.Runc.BinaryName.String() != "crun" {
		t.Errorf("runc's own: %+v, %v", runc, err)
	}
}

func TestWhatIsWrongInAClientsTOMLIsNamed(t *testing.T) {
	for _, c := range []struct {
		m    *runtimeoptions.Options
		want string
	}{
		{&runtimeoptions.Options{ConfigBody: []byte("\nSystemdCgruop = true")}, `config_body, line 2: unknown key "SystemdCgruop", the closest known one is "SystemdCgroup"`},
		{&runtimeoptions.Options{ConfigBody: []byte("IoUid = 'x'")}, `config_body, line 1: IoUid: it cannot be of the type string`},
		{&runtimeoptions.Options{ConfigPath: "/no/such/file"}, `/no/such/file: no such file`},
		{&runtimeoptions.Options{ConfigPath: "relative"}, `"relative" is not an absolute path`},
	} {
		_, err := Client(message(t, c.m))
		if err == nil || !strings.Contains(err.Error(), c.want) || !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", c.m, err)
		}
	}
}

// Whatever a file holds: it is read, or it is one sentence that says why not.
func FuzzFileIsReadOrOneSentence(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte("[limits]\ndrain = 2\n[[runtimes]]\n"))
	f.Add([]byte("\xef\xbb\xbfstdio = '''\ncopy'''\r\n[a.b.c]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var keys clientKeys
		if err := parse("config.toml", text, &keys); err != nil {
			if words := err.Error(); !strings.HasPrefix(words, "config.toml") || strings.Contains(words, "\n") {
				t.Fatalf("%q", words)
			}
			return
		}
		c := keys.Config
		c.Runc = keys.Runc
		data, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var again options.Config
		if err := json.Unmarshal(data, &again); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
	})
}
