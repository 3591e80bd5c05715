// Package bootstrap is what the shim's binary does for a moment: it answers
// containerd's `start` and the cheap half of `delete`, and it defines how the
// process that serves containers, the daemon, is started.
//
// The package is kept free of net, ttrpc and the protobuf runtime, so that it
// can run before they are initialised. What needs an OCI runtime is in the
// packages cleanup (the other half of `delete`) and introspect (`-info`).
//
// This file reads the command line. params.go reads stdin, start.go tells the
// story of a start, socket.go and lock.go own the socket's file, leader.go
// asks a running daemon, spawn.go starts one, daemon.go is the contract with
// it, finished.go is the cheap delete.
package bootstrap

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/errdefs"
)

// Action is what the binary was asked to do.
type Action string

// The actions. Info, Version and Try are asked for by flags; no action at all is
// Serve, by which `start` runs the daemon; Options is what the daemon runs to have
// TOML read.
const (
	Serve   Action = "serve"
	Start   Action = "start"
	Delete  Action = "delete"
	Info    Action = "info"
	Version Action = "version"
	Options Action = "options"
	// Try asks whether this program can take over from a running shim (package
	// upgrade).
	Try Action = "try"
)

// Call is one command line of the binary.
type Call struct {
	Action Action
	// InvokedAs is argv[0]. Its last part picks the OCI runtime.
	InvokedAs string
	// Namespace and ID are valid identifiers, or anything for Info, Version, Options
	// and Try.
	Namespace string
	ID        string
	// Address is the path of containerd's gRPC socket.
	Address string
	// Bundle is the container's folder, when it is not the working directory.
	Bundle string
	// Socket is a path to serve on instead of the inherited socket.
	Socket string
	Debug  bool
}

// Parse reads a command line, argv[0] included. Flags come before the action
// and have one dash or two, as Go's flag package has them.
func Parse(argv []string) (Call, error) {
	if len(argv) == 0 {
		return Call{}, errors.New("the command line is empty, not even a name")
	}
	c := Call{InvokedAs: argv[0]}
	var version, info, try bool
	var unused string
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&c.Debug, "debug", false, "")
	flags.BoolVar(&version, "v", false, "")
	flags.BoolVar(&version, "version", false, "")
	flags.BoolVar(&info, "info", false, "")
	flags.BoolVar(&try, "upgrade-try", false, "")
	flags.StringVar(&c.Namespace, "namespace", "", "")
	flags.StringVar(&c.ID, "id", "", "")
	flags.StringVar(&c.Socket, "socket", "", "")
	flags.StringVar(&unused, "debug-socket", "", "")
	flags.StringVar(&c.Bundle, "bundle", "", "")
	flags.StringVar(&c.Address, "address", "", "")
	flags.StringVar(&unused, "publish-binary", "", "")
	if err := flags.Parse(argv[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return c, errors.New("containerd runs this program: -namespace NS -id ID -address SOCKET [-bundle PATH] [-debug] start|delete, or -info, or -version")
		}
		return c, fmt.Errorf("read command line: %w", err)
	}
	switch {
	case version:
		c.Action = Version
		return c, nil
	case info:
		c.Action = Info
		return c, nil
	case try:
		c.Action = Try
		return c, nil
	}
	switch action := strings.ToLower(flags.Arg(0)); action {
	case "":
		c.Action = Serve
	case "start", "delete":
		c.Action = Action(action)
	case "options":
		c.Action = Options
		return c, nil
	default:
		return c, fmt.Errorf("unknown action %q: only start and delete are known", flags.Arg(0))
	}
	if err := validate("namespace", c.Namespace); err != nil {
		return c, err
	}
	return c, validate("id", c.ID)
}

// Fail is how an action that failed with err ends: the sentence for stderr,
// which containerd shows to its client.
func (c Call) Fail(err error) string {
	return path.Base(c.InvokedAs) + ": " + err.Error() + "\n"
}

func validate(flag, name string) error {
	if name == "" {
		return fmt.Errorf("-%s is missing: %w", flag, errdefs.ErrInvalidArgument)
	}
	if err := ValidName(name); err != nil {
		return fmt.Errorf("-%s %w", flag, err)
	}
	return nil
}

// maxName is the longest name that containerd gives to anything.
const maxName = 76

// ValidName holds a name against containerd's rules for identifiers (its
// package pkg/identifiers): letters and digits, with single dots, dashes and
// underscores between them. Such a name is safe as a part of a path.
func ValidName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("%.*q… is longer than %d characters: %w", maxName, name, maxName, errdefs.ErrInvalidArgument)
	}
	if !identifier(name) {
		return fmt.Errorf("%q is no identifier (letters and digits, with . _ - between them): %w", name, errdefs.ErrInvalidArgument)
	}
	return nil
}

func identifier(name string) bool {
	separator := true // neither first, nor last, nor two of them
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			separator = false
		case (c == '.' || c == '_' || c == '-') && !separator:
			separator = true
		default:
			return false
		}
	}
	return !separator
}
