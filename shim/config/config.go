// Package config reads TOML: the administrator's file, and what clients put
// into their options. What there is to be said is in the package options, whose
// plain data this one fills.
//
// The daemon does not run any of it: it reads what `start` has left in the
// bundle, and has the binary run once more for options that `start` has not
// seen (see Client).
package config

import (
	"fmt"
	"io"
	"os"
	"path"

	"github.com/cleatrun/cleat/shim/options"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of a file. What is made of it must fit into a
// record in a bundle.
const maxFile = 256 << 10

// Read reads all that is said outside of the container's spec: the
// administrator's file, and a client's options. An error names the file, the
// line and the key, and is errdefs.ErrInvalidArgument.
func Read(m options.Message) (options.Said, error) {
	said := options.Said{Message: m}
	var err error
	if file := options.File(); file != "" {
		if said.File, err = readFile(file); err != nil {
			return options.Said{}, fmt.Errorf("read configuration: %w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	said.Client, err = Client(m)
	return said, err
}

// Client reads a client's options alone: those of runc's message, or TOML in a
// file or in the message itself, which goes over that of the file.
func Client(m options.Message) (options.Config, error) {
	c, err := m.Runc()
	if err != nil {
		return c, err
	}
	file, body, err := m.TOML()
	if err != nil {
		return c, err
	}
	var keys clientKeys
	if file != "" {
		var text []byte
		if text, err = read(file); err == nil {
			err = parse(file, text, &keys)
		}
	}
	if err == nil && len(body) > 0 {
		err = parse("config_body", body, &keys)
	}
	if err != nil {
		return c, fmt.Errorf("read options %s: %w: %w", m.TypeURL, err, errdefs.ErrInvalidArgument)
	}
	if file != "" || len(body) > 0 {
		c = keys.Config
		c.Runc = keys.Runc
	}
	return c, nil
}

// readFile reads the administrator's file.
func readFile(file string) (options.Config, error) {
	text, err := read(file)
	if err != nil {
		return options.Config{}, err
	}
	var c options.Config
	if err := parse(file, text, &c); err != nil {
		return options.Config{}, err
	}
	return c, c.Check()
}

// read reads a regular file, by way of links too, and never waits for a FIFO.
func read(file string) ([]byte, error) {
	if !path.IsAbs(file) {
		return nil, fmt.Errorf("%q is not an absolute path", file)
	}
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", file)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", file, maxFile)
	}
	return text, nil
}
