package options

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cleatrun/cleat/oci"
)

// Config is what an administrator or a client says in TOML: plain data, so that
// what the short-lived actions have read can be handed to the daemon, which
// reads no TOML. What is not said is nil or empty. The package config reads it;
// docs/configuration.md has every key.
type Config struct {
	// Runtime is the name of the OCI runtime that the shim drives under its own
	// name.
	Runtime   string             `toml:"runtime" json:"runtime,omitempty"`
	Runtimes  map[string]Runtime `toml:"runtimes" json:"runtimes,omitempty"`
	Group     Group              `toml:"group" json:"group,omitzero"`
	SocketDir AbsolutePath       `toml:"socket_dir" json:"socket_dir,omitzero"`
	Stdio     Stdio              `toml:"stdio" json:"stdio,omitzero"`
	// Annotations are those of io.containerd.cleat. that containers may have, nil
	// for all.
	Annotations *[]Annotation `toml:"annotations" json:"annotations,omitempty"`
	Limits      Limits        `toml:"limits" json:"limits,omitzero"`
	Logs        Logs          `toml:"logs" json:"logs,omitzero"`

	// Runc are the options of runc's own message, which only clients have.
	Runc Runc `toml:"-" json:"runc,omitzero"`
}

// Runtime is how one OCI runtime is called.
type Runtime struct {
	// Path is a path, or a name to be looked up; empty means the table's name.
	Path          Program           `toml:"path" json:"path,omitzero"`
	Args          []string          `toml:"args" json:"args,omitempty"`
	Root          AbsolutePath      `toml:"root" json:"root,omitzero"`
	Env           map[string]string `toml:"env" json:"env,omitempty"`
	SystemdCgroup *bool             `toml:"systemd_cgroup" json:"systemd_cgroup,omitempty"`
	LogFormat     LogFormat         `toml:"log_format" json:"log_format,omitzero"`
	Signals       Signals           `toml:"signals" json:"signals,omitzero"`
	Processes     Processes         `toml:"processes" json:"processes,omitzero"`
}

// Logs is stdio.Logs.
type Logs struct {
	Policy LogPolicy    `toml:"policy" json:"policy,omitzero"`
	Limit  Size         `toml:"limit" json:"limit,omitzero"`
	Dir    AbsolutePath `toml:"dir" json:"dir,omitzero"`
}

// Limits are time limits; process.Limits and driver.Limits say of what.
type Limits struct {
	Operation  *Duration `toml:"operation" json:"operation,omitempty"`
	Launch     *Duration `toml:"launch" json:"launch,omitempty"`
	Checkpoint *Duration `toml:"checkpoint" json:"checkpoint,omitempty"`
	Control    *Duration `toml:"control" json:"control,omitempty"`
	Console    *Duration `toml:"console" json:"console,omitempty"`
	Drain      *Duration `toml:"drain" json:"drain,omitempty"`
	ExecHold   *Duration `toml:"exec_hold" json:"exec_hold,omitempty"`
	Kill       *Duration `toml:"kill" json:"kill,omitempty"`
}

// Runc are the fields of containerd.runc.v1.Options, under the names that they
// have in containerd's configuration.
type Runc struct {
	BinaryName    Program      `toml:"BinaryName" json:"BinaryName,omitzero"`
	Root          AbsolutePath `toml:"Root" json:"Root,omitzero"`
	SystemdCgroup *bool        `toml:"SystemdCgroup" json:"SystemdCgroup,omitempty"`
	NoPivotRoot   bool         `toml:"NoPivotRoot" json:"NoPivotRoot,omitempty"`
	NoNewKeyring  bool         `toml:"NoNewKeyring" json:"NoNewKeyring,omitempty"`
	ShimCgroup    string       `toml:"ShimCgroup" json:"ShimCgroup,omitempty"`
	IoUid         uint32       `toml:"IoUid" json:"IoUid,omitempty"`
	IoGid         uint32       `toml:"IoGid" json:"IoGid,omitempty"`
	CriuImagePath string       `toml:"CriuImagePath" json:"CriuImagePath,omitempty"`
	CriuWorkPath  string       `toml:"CriuWorkPath" json:"CriuWorkPath,omitempty"`
}

// Settings are what holds for one container, of all that was said but in its
// annotations.
type Settings struct {
	Runtime oci.Options
	Config
}

// Resolve puts what client says over what file says over what is built in, for
// a shim that was run as invokedAs. BinaryName is never empty in the result.
func Resolve(invokedAs string, file, client Config) Settings {
	all := file.under(client)
	name := client.Runc.BinaryName.s
	if name == "" {
		name = client.Runtime
	}
	if name == "" {
		name = linkedRuntime(invokedAs)
	}
	if name == "" {
		name = all.Runtime
	}
	if name == "" {
		name = DefaultRuntime
	}
	r := all.Runtimes[name] // of a path there is none
	if r.Path.s != "" {
		name = r.Path.s
	}
	runc := client.Runc
	o := oci.Options{
		BinaryName:    name,
		Args:          r.Args,
		Root:          r.Root.s,
		Env:           environment(r.Env),
		SystemdCgroup: r.SystemdCgroup != nil && *r.SystemdCgroup,
		LogFormat:     r.LogFormat.oci(),
		Signals:       r.Signals.oci(),
		Processes:     r.Processes.oci(),
		NoPivotRoot:   runc.NoPivotRoot,
		NoNewKeyring:  runc.NoNewKeyring,
		ShimCgroup:    runc.ShimCgroup,
		IOUID:         runc.IoUid,
		IOGID:         runc.IoGid,
		CriuImagePath: runc.CriuImagePath,
		CriuWorkPath:  runc.CriuWorkPath,
	}
	if runc.Root.s != "" {
		o.Root = runc.Root.s
	}
	if runc.SystemdCgroup != nil {
		o.SystemdCgroup = *runc.SystemdCgroup
	}
	return Settings{Runtime: o, Config: all}
}

// under returns c with all that over says put over it.
func (c Config) under(over Config) Config {
	say(&c.Runtime, over.Runtime)
	say(&c.Group, over.Group)
	say(&c.SocketDir, over.SocketDir)
	say(&c.Stdio, over.Stdio)
	say(&c.Annotations, over.Annotations)
	say(&c.Limits.Operation, over.Limits.Operation)
	say(&c.Limits.Launch, over.Limits.Launch)
	say(&c.Limits.Checkpoint, over.Limits.Checkpoint)
	say(&c.Limits.Control, over.Limits.Control)
	say(&c.Limits.Console, over.Limits.Console)
	say(&c.Limits.Drain, over.Limits.Drain)
	say(&c.Limits.ExecHold, over.Limits.ExecHold)
	say(&c.Limits.Kill, over.Limits.Kill)
	if over.Logs.Policy.s != "" && over.Logs.Policy != c.Logs.Policy {
		c.Logs.Limit = Size{} // that was another policy's
	}
	say(&c.Logs.Policy, over.Logs.Policy)
	say(&c.Logs.Limit, over.Logs.Limit)
	say(&c.Logs.Dir, over.Logs.Dir)
	c.Runc = over.Runc
	if len(over.Runtimes) > 0 {
		runtimes := maps.Clone(c.Runtimes)
		if runtimes == nil {
			runtimes = map[string]Runtime{}
		}
		for name, r := range over.Runtimes {
			runtimes[name] = runtimes[name].under(r)
		}
		c.Runtimes = runtimes
	}
	return c
}

func (r Runtime) under(over Runtime) Runtime {
	say(&r.Path, over.Path)
	say(&r.Root, over.Root)
	say(&r.SystemdCgroup, over.SystemdCgroup)
	say(&r.LogFormat, over.LogFormat)
	say(&r.Signals, over.Signals)
	say(&r.Processes, over.Processes)
	if over.Args != nil {
		r.Args = over.Args
	}
	if over.Env != nil {
		r.Env = over.Env
	}
	return r
}

// say sets what something is said of.
func say[T comparable](what *T, said T) {
	if nothing := *new(T); said != nothing {
		*what = said
	}
}

func environment(variables map[string]string) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		list = append(list, name+"="+variables[name])
	}
	return list
}

// Check finds what no single value can show to be wrong.
func (c Config) Check() error {
	for name, r := range c.Runtimes {
		if name == "" || strings.Contains(name, "/") {
			return fmt.Errorf("runtimes.%q: it is not the name of a runtime", name)
		}
		for variable := range r.Env {
			if variable == "" || strings.ContainsAny(variable, "=\x00") {
				return fmt.Errorf("runtimes.%s.env: %q is not the name of a variable", name, variable)
			}
		}
	}
	if strings.Contains(c.Runtime, "/") {
		return fmt.Errorf("runtime: %q is a path; it names a runtime, whose path is in [runtimes.NAME]", c.Runtime)
	}
	return nil
}
