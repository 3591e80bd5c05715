package config

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/cleatrun/cleat/shim/bootstrap"
)

// Answer is the action `options`, which the daemon runs: it reads a client's
// options from stdin, and writes what they say to stdout, an options.Config in
// JSON.
func Answer(stdin io.Reader, stdout io.Writer) error {
	m, err := bootstrap.ParseOptions(stdin)
	if err != nil {
		return err
	}
	c, err := Client(m)
	if err != nil {
		return err
	}
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write what the options say: %w", err)
	}
	_, err = stdout.Write(data)
	return err
}

// Start is the action `start` whether or not there is TOML to be read for it.
func Start(s bootstrap.Starting, stdout io.Writer) error {
	said, plain, err := s.Plain()
	if err == nil && !plain {
		said, err = Read(s.Options())
	}
	if err != nil {
		return err
	}
	return s.Run(said, !plain, stdout)
}
