package cri

// What is written for administrators, word by word.

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cleatrun/cleat/integration/daemon"
)

// blocks are the code blocks of a language in one of the repository's documents.
func blocks(t *testing.T, document, language string) (list []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", document))
	if err != nil {
		t.Fatal(err)
	}
	rest := string(text)
	for {
		_, after, ok := strings.Cut(rest, "\n```"+language+"\n")
		if !ok {
			return list
		}
		block, end, _ := strings.Cut(after, "```")
		list, rest = append(list, block), end
	}
}

// handler is what containerd says that it has read of one.
type handler struct {
	Type    string         `json:"runtimeType"`
	Path    string         `json:"runtimePath"`
	Options map[string]any `json:"options"`
}

// containerd takes the tables of the documents, and pods run with them by the
// name that the RuntimeClass gives.
func TestDocumentedConfiguration(t *testing.T) {
	t.Parallel()
	if runtimeName != ourRuntime {
		t.Skip("the documents are about cleat")
	}
	older := "" // what a containerd is known not to do with them
	if programs.Release.Older("1.7") {
		older = "with runtime_path the shim is containerd-shim-runc-v2|options in TOML do not reach the shim"
	}
	const name = "cleat"
	for document, want := range map[string]int{"docs/kubernetes.md": 2, "README.md": 1} {
		class := blocks(t, document, "yaml")
		if len(class) != 1 || !strings.Contains(class[0], "\nhandler: "+name+"\n") {
			t.Errorf("%s: the handler of the RuntimeClass is not %s: %q", document, name, class)
		}
		tables := blocks(t, document, "toml")
		if len(tables) != want {
			t.Fatalf("%s has %d tables for containerd, want %d", document, len(tables), want)
		}
		for i, table := range tables {
			t.Run(fmt.Sprint(filepath.Base(document), i), func(t *testing.T) {
				t.Parallel()
				c := config()
				c.Path = []string{filepath.Dir(programs.StockShim)} // where the table alone does not say whose shim it is
				c.Kubernetes.Handlers = table
				d := ownDaemon(t, c)
				read := loaded(t, d, name)
				systemd := strings.Count(table, "SystemdCgroup = true") + strings.Count(table, "systemd_cgroup = true")
				if systemd != 1 {
					t.Errorf("cgroups by systemd are asked for %d times", systemd)
				}
				for _, value := range []string{read.Type, read.Path} {
					if value != "" && !strings.Contains(table, fmt.Sprintf("%q", value)) {
						t.Errorf("containerd has read %+v", read)
					}
				}
				if len(read.Options) == 0 {
					t.Errorf("containerd has read no options: %+v", read)
				}

				// There is no systemd in the room to ask for cgroups.
				c.Kubernetes.Handlers = strings.NewReplacer("SystemdCgroup = true", "SystemdCgroup = false",
					"systemd_cgroup = true", "systemd_cgroup = false").Replace(table)
				p := runPod(t, ownDaemon(t, c), name, "documented")
				container := p.run("main", forever)
				if out := container.output("echo", "hello"); out != "hello\n" {
					t.Errorf("an exec writes %q", out)
				}
				program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.oneShim(container)))
				if err != nil {
					t.Fatal(err)
				}
				if program != programs.Shim {
					cannot(t, older, fmt.Errorf("with runtime_path the shim is %s", filepath.Base(program)))
				}
				if root := "/run/cleat/runc"; strings.Contains(table, root) {
					if _, err := os.Stat(filepath.Join(root, "k8s.io", container.id)); err != nil {
						cannot(t, older, fmt.Errorf("options in TOML do not reach the shim: %w", err))
					}
				}
				p.end()
			})
		}
	}
}

// loaded is what a containerd has read of a handler.
func loaded(t *testing.T, d *daemon.Daemon, name string) handler {
	t.Helper()
	answer, err := cri.NewRuntimeServiceClient(conn(t, d)).Status(bounded(t), &cri.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Containerd struct {
			Runtimes map[string]handler `json:"runtimes"`
		} `json:"containerd"`
	}
	if err := json.Unmarshal([]byte(answer.Info["config"]), &config); err != nil {
		t.Fatal(err)
	}
	read, ok := config.Containerd.Runtimes[name]
	if !ok {
		t.Fatalf("containerd has read %v", config.Containerd.Runtimes)
	}
	return read
}
