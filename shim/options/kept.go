package options

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cleatrun/cleat/oci"
)

// keptFile is where `start` leaves in a bundle what it has read of TOML.
const keptFile = "said.json"

// Keep leaves in the bundle what was said, for the daemon and for `delete`.
func (s Said) Keep(bundle oci.Bundle) error {
	data, err := json.Marshal(s)
	if err == nil {
		err = bundle.Replace(keptFile, data)
	}
	if err != nil {
		return fmt.Errorf("keep the configuration in the bundle: %w", err)
	}
	return nil
}

// Forget undoes Keep.
func Forget(bundle oci.Bundle) error { return bundle.Remove(keptFile) }

// Kept returns what Keep has left, if it has left anything.
func Kept(bundle oci.Bundle) (s Said, found bool, err error) {
	data, err := bundle.Read(keptFile)
	if errors.Is(err, fs.ErrNotExist) {
		return s, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return Said{}, false, fmt.Errorf("read the configuration kept in the bundle: %w", err)
	}
	return s, true, nil
}
