package leftovers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/cleatrun/cleat/cmd/cleat/shims"
	"github.com/cleatrun/cleat/shim/bootstrap"
)

// sockets are those on which nobody listens and that no bundle names: those go
// with their bundles.
func (s Search) sockets(ctx context.Context, bundles []bundle) []Leftover {
	var found []Leftover
	for _, dir := range s.SocketDirs {
		for _, path := range shims.Sockets(dir) {
			named := slices.ContainsFunc(bundles, func(b bundle) bool { return b.socket == path })
			if ctx.Err() != nil || named || s.alive(path) || listened(path) {
				continue
			}
			found = append(found, Leftover{Kind: Socket, Path: path, Why: "nobody listens"})
		}
	}
	return found
}

// removeSocket removes one under the lock that `start` takes, if still nobody
// listens.
func removeSocket(path string) error {
	if err := (bootstrap.Daemon{SocketPath: path}).RemoveSocket(); err != nil {
		return err
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("somebody listens on it again")
	}
	return nil
}
