package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/child"
	"github.com/cleatrun/cleat/oci/driver"
	"github.com/cleatrun/cleat/oci/wire"
	"github.com/cleatrun/cleat/process"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/cleatrun/cleat/shim/options"
	"github.com/containerd/errdefs"
)

// readLimit bounds how long the binary may take to read a client's TOML.
const readLimit = 10 * time.Second

// self is the running binary, also when its file has been replaced.
const self = "/proc/self/exe"

// settings are what holds for a container that is to be created in bundle with
// a client's options m.
func (t *taskService) settings(ctx context.Context, bundle oci.Bundle, m options.Message) (options.Settings, error) {
	said, err := t.said(bundle)
	if err != nil {
		return options.Settings{}, err
	}
	// As a rule `start` has seen the same options and read them.
	if !said.Message.Equal(m) {
		said.Message = m
		if said.Client, err = readOptions(ctx, m); err != nil {
			return options.Settings{}, err
		}
	}
	if m.TypeURL != "" && !m.Known() {
		t.log.Warn("%s: options of the type %s are not for this shim, and ignored", bundle, m.TypeURL)
	}
	return said.Settings(t.invokedAs), nil
}

// said is what was said to the start of the container, or, if none was run for
// it, to that of the shim. A start that has found no TOML has left none.
func (t *taskService) said(bundle oci.Bundle) (options.Said, error) {
	said, found, err := options.Kept(bundle)
	if found || err != nil {
		return said, err
	}
	if _, err := bundle.ReadAddress(); errors.Is(err, fs.ErrNotExist) {
		return t.leader, nil
	}
	return options.Said{}, nil
}

// readOptions returns what a client's options say. TOML is read by another
// process of the same binary, which ends with that: the library would cost
// every daemon memory for ever.
func readOptions(ctx context.Context, m options.Message) (c options.Config, err error) {
	path, body, err := m.TOML()
	if err != nil {
		return c, err
	}
	if path == "" && len(body) == 0 {
		return m.Runc()
	}
	// Who has asked may be gone: a create goes on.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readLimit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, self, string(bootstrap.Options))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(anyOf(m)), &stdout, &stderr
	reader, err := child.Start(cmd)
	if err != nil {
		return c, fmt.Errorf("read options %s: %w", m.TypeURL, err)
	}
	if _, err := reader.Wait(context.Background()); err != nil {
		return c, err
	}
	switch {
	case ctx.Err() != nil:
		return c, fmt.Errorf("read options %s: no answer within %s: %w", m.TypeURL, readLimit, errdefs.ErrUnavailable)
	case !reader.Success():
		_, words, _ := strings.Cut(strings.TrimSpace(stderr.String()), ": ") // the name of the program
		return c, fmt.Errorf("%s: %w", words, errdefs.ErrInvalidArgument)
	}
	if err := json.Unmarshal(stdout.Bytes(), &c); err != nil {
		return c, fmt.Errorf("read options %s: %w: %w", m.TypeURL, err, errdefs.ErrInternal)
	}
	return c, nil
}

// anyOf is a google.protobuf.Any.
func anyOf(m options.Message) []byte {
	b := wire.AppendSized(wire.AppendTag(nil, 1, wire.BytesKind), m.TypeURL)
	return wire.AppendSized(wire.AppendTag(b, 2, wire.BytesKind), m.Value)
}

// logs is what becomes of a container's output that nobody takes.
func logs(said options.Logs) stdio.Logs {
	return stdio.Logs{Policy: stdio.Policy(said.Policy.String()), Limit: said.Limit.Bytes(), Dir: said.Dir.String()}
}

// limits are those that a container is given.
func limits(said options.Limits) process.Limits {
	builtIn := process.DefaultLimits
	return process.Limits{
		Operation: said.Operation.Or(builtIn.Operation),
		Console:   said.Console.Or(builtIn.Console),
		Drain:     said.Drain.Or(builtIn.Drain),
		ExecHold:  said.ExecHold.Or(builtIn.ExecHold),
		Killed:    said.Kill.Or(builtIn.Killed),
		Runtime: driver.Limits{
			Launch:     said.Launch.Or(builtIn.Runtime.Launch),
			Checkpoint: said.Checkpoint.Or(builtIn.Runtime.Checkpoint),
			Control:    said.Control.Or(builtIn.Runtime.Control),
		},
	}
}

// annotations are those that a container may have, nil for all.
func annotations(said *[]options.Annotation) []string {
	if said == nil {
		return nil
	}
	names := []string{}
	for _, a := range *said {
		names = append(names, a.String())
	}
	return names
}
