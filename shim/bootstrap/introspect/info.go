// Package introspect is `-info`: what this shim and its OCI runtime can do.
// containerd asks for each runtime handler when it starts, and before it makes
// a container with idmapped mounts.
package introspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/cleatrun/cleat/oci/driver"
	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/cleatrun/cleat/shim/config"
	"github.com/cleatrun/cleat/shim/message"
	"github.com/cleatrun/cleat/shim/options"
	"github.com/cleatrun/cleat/shim/version"
)

// featuresType is the type under which containerd's clients look for the
// runtime spec's features document, in JSON.
const featuresType = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"

// featuresLimit bounds how long the OCI runtime may take to tell its features.
const featuresLimit = 5 * time.Second

// Info reads options from stdin, or nothing, and writes a
// containerd.types.RuntimeInfo to stdout. An OCI runtime that is not there, or
// is no program, is an error, as is one that does not answer in time; one that
// knows no features has none. Options that are not for the shim are told on stderr.
func Info(call bootstrap.Call, stdin io.Reader, stdout, stderr io.Writer) error {
	m, err := bootstrap.ParseOptions(stdin)
	if err != nil {
		return err
	}
	said, err := config.Read(m)
	if err != nil {
		return err
	}
	if !m.Known() && m.TypeURL != "" {
		fmt.Fprintf(stderr, "options of the type %s are not for this shim, and ignored\n", m.TypeURL)
	}
	release, revision := version.Get()
	info := &message.RuntimeInfo{
		Name_:   options.RuntimeName(call.InvokedAs),
		Version: &message.RuntimeVersion{Version: release, Revision: revision},
	}
	if m.TypeURL != "" {
		info.Options = &message.Any{TypeUrl: m.TypeURL, Value: m.Value}
	}
	runtime := driver.New("", "", said.Settings(call.InvokedAs).Runtime)
	if info.Features, err = runtimeFeatures(runtime); err != nil {
		return err
	}
	_, err = stdout.Write(info.Append(nil))
	return err
}

func runtimeFeatures(runtime *driver.Runtime) (*message.Any, error) {
	path, err := runtime.LookPath()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), featuresLimit)
	defer cancel()
	document, err := runtime.Features(ctx)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("features of %s: no answer within %s", path, featuresLimit)
	}
	if unfit := (*fs.PathError)(nil); errors.As(err, &unfit) {
		return nil, err // it is no program
	}
	if err != nil {
		return nil, nil // it knows no such command
	}
	return &message.Any{TypeUrl: featuresType, Value: document}, nil
}
