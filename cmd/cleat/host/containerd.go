package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cleatrun/cleat/cmd/cleat/shims"
	"github.com/cleatrun/cleat/shim/options"
	"github.com/pelletier/go-toml/v2"
	"github.com/prometheus/procfs"
)

// Containerd is one that runs.
type Containerd struct {
	PID     int
	Version string
	// Config is the path of its configuration, State its folder for bundles.
	Config, State string
	// Path are the folders in which it looks for shims and OCI runtimes.
	Path []string
	// Handlers are the runtimes of its CRI by name.
	Handlers map[string]Handler
	// Shims of cleat that it finds by the names of runtimes.
	Shims   map[string]string
	failure error
	proc    procfs.Proc
}

// Handler is a runtime of containerd's CRI.
type Handler struct {
	Type string `toml:"runtime_type"`
	Path string `toml:"runtime_path"`
	// Options are those of its containers, as far as they are looked at.
	Options struct{ Root string } `toml:"options"`
	// File is the shim that it stands for, empty if there is none; Kind is whose.
	File string
	Kind shims.Kind
}

// defaultConfig and defaultState are containerd's own.
const (
	defaultConfig = "/etc/containerd/config.toml"
	defaultState  = "/run/containerd"
)

// Containerds finds all that run and are of this user's file system.
func Containerds(ctx context.Context) []Containerd {
	all, err := procfs.AllProcs()
	if err != nil {
		return nil
	}
	var found []Containerd
	seen := map[string]bool{}
	for _, p := range all {
		args, err := p.CmdLine()
		if err != nil || len(args) == 0 || filepath.Base(args[0]) != "containerd" {
			continue
		}
		// A process that has no program of its own yet looks like who has made it.
		mounts, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", p.PID))
		name := fmt.Sprintf("%q %s", args, mounts)
		if seen[name] {
			continue
		}
		seen[name] = true
		c := Containerd{PID: p.PID, State: defaultState, proc: p}
		program, err := trusted(p)
		if c.failure = err; err == nil {
			c.read(ctx, program, args)
			program.Close()
		}
		found = append(found, c)
	}
	return found
}

// trusted opens the program of a process if it can be run: anybody can call one
// containerd, in a container, too.
func trusted(p procfs.Proc) (*os.File, error) {
	program, err := os.Open(fmt.Sprintf("/proc/%d/exe", p.PID))
	if errors.Is(err, fs.ErrPermission) {
		return nil, errors.New("it belongs to another user, and is not asked")
	}
	if err != nil {
		return nil, fmt.Errorf("look at its program: %w", err)
	}
	switch status, failure := p.NewStatus(); {
	case failure != nil || int(status.UIDs[0]) != os.Geteuid():
		err = errors.New("it belongs to another user, and is not asked")
	case !shims.SameMounts(p.PID):
		err = errors.New("it has mounts of its own, as in a container, and is not asked")
	default:
		err = shims.Trusted(program)
	}
	if err != nil {
		program.Close()
		return nil, err
	}
	return program, nil
}

// read asks the program that runs for its version and its configuration.
func (c *Containerd) read(ctx context.Context, program *os.File, args []string) {
	environ, _ := c.proc.Environ()
	for _, v := range environ {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			c.Path = filepath.SplitList(path)
		}
	}
	if file, err := os.Readlink(program.Name()); err == nil {
		c.Path = append(c.Path, filepath.Dir(file)) // the last place where it looks
	}
	version, err := runFile(ctx, program, "--version")
	if err != nil {
		c.failure = fmt.Errorf("it cannot be run: %w", err)
		return
	}
	if fields := strings.Fields(version); len(fields) > 2 {
		c.Version = fields[2]
	}
	if c.Config = option(args, "c", "config"); c.Config == "" {
		c.Config = defaultConfig
	}
	text, err := runFile(ctx, program, "--config", c.Config, "config", "dump")
	if err == nil {
		err = c.parse(text)
	}
	if err != nil {
		c.failure = fmt.Errorf("read its configuration %s: %w", c.Config, err)
	}
	if state := option(args, "", "state"); state != "" {
		c.State = state
	}
	c.Shims = map[string]string{}
	for _, dir := range c.Path {
		files, _ := filepath.Glob(filepath.Join(dir, "containerd-shim-*-*"))
		for _, file := range files {
			runtime := options.RuntimeName(file)
			if kind, err := shims.KindOf(file); err == nil && kind == shims.Cleat && c.shim(runtime, "") == file {
				c.Shims[runtime] = file
			}
		}
	}
}

// option is the value of a flag on a command line.
func option(args []string, short, long string) string {
	for i, arg := range args {
		name, value, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "-") || name != long && (short == "" || name != short) {
			continue
		}
		if !given && i+1 < len(args) {
			value = args[i+1]
		}
		return value
	}
	return ""
}

// parse reads what `containerd config dump` writes. The CRI is called one thing
// by containerd 1, another one since.
func (c *Containerd) parse(text string) error {
	type cri struct {
		Containerd struct {
			Runtimes map[string]Handler `toml:"runtimes"`
		} `toml:"containerd"`
	}
	var config struct {
		State   string `toml:"state"`
		Plugins struct {
			New cri `toml:"io.containerd.cri.v1.runtime"`
			Old cri `toml:"io.containerd.grpc.v1.cri"`
		} `toml:"plugins"`
		Disabled []string `toml:"disabled_plugins"`
	}
	if err := toml.Unmarshal([]byte(text), &config); err != nil {
		return err
	}
	if config.State != "" {
		c.State = config.State
	}
	c.Handlers = config.Plugins.New.Containerd.Runtimes
	if len(c.Handlers) == 0 {
		c.Handlers = config.Plugins.Old.Containerd.Runtimes
	}
	if slices.Contains(config.Disabled, "io.containerd.grpc.v1.cri") || slices.Contains(config.Disabled, "cri") {
		c.Handlers = nil
	}
	for name, h := range c.Handlers {
		h.File = c.shim(h.Type, h.Path)
		if h.File != "" {
			h.Kind, _ = shims.KindOf(h.File)
		}
		c.Handlers[name] = h
	}
	return nil
}

// shim is the file that containerd runs for a runtime, empty if there is none.
func (c *Containerd) shim(runtime, path string) string {
	if path == "" && filepath.IsAbs(runtime) {
		path = runtime
	}
	if path != "" {
		if exists(path) != nil {
			return ""
		}
		return path
	}
	parts := strings.Split(runtime, ".")
	if len(parts) < 2 {
		return ""
	}
	return lookup(c.Path, "containerd-shim-"+strings.Join(parts[len(parts)-2:], "-"))
}

// Findings are what is to be said of it.
func (c *Containerd) Findings() []Finding {
	f := &findings{area: fmt.Sprintf("containerd, process %d", c.PID)}
	if c.failure != nil {
		f.add("containerd", Warn, c.failure.Error(), "what it runs cannot be told")
	}
	if c.Version != "" {
		f.add("version", OK, c.Version, "")
		if strings.HasPrefix(c.Version, "v1.") && !strings.HasPrefix(c.Version, "v1.6.") && !strings.HasPrefix(c.Version, "v1.7.") {
			f.all[len(f.all)-1] = Finding{f.area, "version", Warn, c.Version, "1.6 and later are tested"}
		}
	}
	f.add("state", OK, c.State, "")
	ours := 0
	for _, name := range sortedKeys(c.Handlers) {
		h := c.Handlers[name]
		switch {
		case h.File == "":
			f.add("handler "+name, Warn, fmt.Sprintf("%s: there is no such shim", strings.TrimSpace(h.Type+" "+h.Path)), "install it, or remove the handler")
		case h.Kind == shims.Cleat:
			f.add("handler "+name, OK, h.File+", a shim of cleat", "")
			ours++
		default:
			f.add("handler "+name, Note, h.File+", of another make", "")
		}
	}
	for _, runtime := range sortedKeys(c.Shims) {
		f.add("runtime "+runtime, OK, c.Shims[runtime]+", a shim of cleat", "")
		ours++
	}
	if ours == 0 && c.failure == nil {
		f.add("shims of cleat", Warn, "none is found in "+strings.Join(c.Path, ":"), "install it there (make install), or name it by runtime_path")
	}
	ofProcess(f, c.proc)
	return f.all
}

// NoContainerd is what is to be said where none runs.
func NoContainerd(ctx context.Context) []Finding {
	f := &findings{area: "containerd"}
	file := lookup(OwnPath(), "containerd")
	if file == "" {
		f.add("containerd", Bad, "none runs, and none is in PATH", "shims that run do without, but nothing starts one")
		return f.all
	}
	version, err := run(ctx, file, "--version")
	if err != nil {
		version = err.Error()
	}
	f.add("containerd", Bad, fmt.Sprintf("none runs; %s is installed (%s)", file, firstLine(version)), "start it: shims that run do without, but nothing else starts one")
	return f.all
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
