package bootstrap

import (
	"errors"
	"fmt"
	"io"

	"github.com/cleatrun/cleat/oci/wire"
	"github.com/cleatrun/cleat/shim/options"
	"github.com/containerd/errdefs"
)

// maxStdin bounds what is read of stdin; containerd's own shim has the same.
const maxStdin = 10 << 20

// params is what containerd says on the stdin of `start`.
type params struct {
	// legacy tells that the caller is a containerd before 2.3, which sends
	// its options alone, or nothing, and reads a plain address as the answer.
	legacy       bool
	debug        bool
	ttrpcAddress string
	grpcAddress  string
	socketDir    string
	options      options.Message
}

// version of the Task API that the caller takes a shim to serve that says nothing
// else of itself.
func (p params) version() int {
	if p.legacy {
		return oldVersion
	}
	return latestVersion
}

// logLevelDebug is LOG_LEVEL_DEBUG of containerd.runtime.bootstrap.v1; lower
// is more.
const logLevelDebug = -4

// readStdin reads all of stdin. It may be empty.
func readStdin(stdin io.Reader) ([]byte, error) {
	input, err := io.ReadAll(io.LimitReader(stdin, maxStdin+1))
	if err != nil {
		return nil, fmt.Errorf("read stdin: %w", err)
	}
	if len(input) > maxStdin {
		return nil, fmt.Errorf("read stdin: more than %d bytes: %w", maxStdin, errdefs.ErrInvalidArgument)
	}
	return input, nil
}

// parseParams reads the stdin of `start` in whichever form it is. Options
// alone look like BootstrapParams too (their first two fields are of the same
// kind), so it is the names in it that decide.
func (c Call) parseParams(input []byte) (params, error) {
	boot, err := parseBootstrapParams(input)
	switch named := boot.id == c.ID && boot.namespace == c.Namespace; {
	case named && err == nil:
		return boot.params, nil
	case !boot.beyondAny:
	case err != nil:
		return params{}, fmt.Errorf("read bootstrap parameters on stdin: %w: %w", err, errdefs.ErrInvalidArgument)
	default:
		return params{}, fmt.Errorf("bootstrap parameters on stdin are for container %q in namespace %q, the command line is for %q in %q: %w",
			boot.id, boot.namespace, c.ID, c.Namespace, errdefs.ErrInvalidArgument)
	}
	p := params{legacy: true}
	if p.options, err = parseOptions(input); err != nil {
		return params{}, fmt.Errorf("stdin holds neither bootstrap parameters nor options: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return p, nil
}

// ParseOptions reads the stdin of `-info` and `options`: options alone, or nothing.
func ParseOptions(stdin io.Reader) (options.Message, error) {
	input, err := readStdin(stdin)
	if err != nil {
		return options.Message{}, err
	}
	m, err := parseOptions(input)
	if err != nil {
		return m, fmt.Errorf("stdin holds no options: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return m, nil
}

type bootstrapParams struct {
	params
	id, namespace string
	// beyondAny tells that there was a field that an Any does not have.
	beyondAny bool
}

// parseBootstrapParams reads containerd.runtime.bootstrap.v1.BootstrapParams
// (runtime/bootstrap/v1/bootstrap.proto). Of the extensions, the first that
// holds options for the shim is taken; those of unknown types are for others.
func parseBootstrapParams(message []byte) (p bootstrapParams, err error) {
	var unused string
	for field, err := range wire.Fields(message) {
		if err != nil {
			return p, err
		}
		if field.Number > 2 {
			p.beyondAny = true
		}
		switch field.Number {
		case 1:
			err = field.Text(&p.id)
		case 2:
			err = field.Text(&p.namespace)
		case 3:
			var level int32
			field.Int32(&level)
			p.debug = level <= logLevelDebug
		case 4, 7: // containerd's version and path
			err = field.Text(&unused)
		case 5:
			err = field.Text(&p.ttrpcAddress)
		case 6:
			err = field.Text(&p.grpcAddress)
		case 8:
			var extension []byte
			field.Bytes(&extension)
			err = p.addExtension(extension)
		case 9:
			err = field.Text(&p.socketDir)
		}
		if err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p *params) addExtension(message []byte) error {
	for field, err := range wire.Fields(message) {
		if err != nil {
			return err
		}
		if field.Number != 1 {
			continue
		}
		var content []byte
		field.Bytes(&content)
		a, err := parseAny(content)
		if err != nil {
			return err
		}
		if p.options.TypeURL == "" && a.Known() {
			p.options = a
		}
	}
	return nil
}

// parseOptions reads options alone, a google.protobuf.Any, or nothing.
func parseOptions(input []byte) (options.Message, error) {
	a, err := parseAny(input)
	if err == nil && a.TypeURL == "" && len(input) > 0 {
		err = errors.New("the type of the options is not named")
	}
	return a, err
}

func parseAny(message []byte) (a options.Message, err error) {
	for field, err := range wire.Fields(message) {
		if err != nil {
			return a, err
		}
		switch field.Number {
		case 1:
			err = field.Text(&a.TypeURL)
		case 2:
			field.Bytes(&a.Value)
		}
		if err != nil {
			return a, err
		}
	}
	return a, nil
}
