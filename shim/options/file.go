package options

import (
	"errors"
	"io/fs"
	"os"
)

const (
	// DefaultFile is the administrator's file. There need not be one.
	DefaultFile = "/etc/cleat/config.toml"
	// FileVariable is the environment variable that names another one, which
	// must be there.
	FileVariable = "CLEAT_CONFIG"
)

// File is the path of the administrator's file, or empty when there is none.
// That there is one does not mean that it can be read.
func File() string {
	if path := os.Getenv(FileVariable); path != "" {
		return path
	}
	if _, err := os.Lstat(DefaultFile); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return DefaultFile
}
