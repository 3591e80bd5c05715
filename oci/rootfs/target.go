package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks bounds the symbolic links on the way to a target, as the kernel does
// with 40.
const maxLinks = 255

// beneath finds the place of path in a root filesystem as a process whose root
// it is would: no link and no ".." leads out of root. What does not exist is
// taken by its name, for mount to fail upon.
func beneath(root, path string) (string, error) {
	at := "/"
	rest := path
	for links := 0; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		link, err := os.Readlink(filepath.Join(root, next))
		switch {
		case err == nil:
			if links++; links > maxLinks {
				return "", &fs.PathError{Op: "resolve", Path: path, Err: unix.ELOOP}
			}
			if strings.HasPrefix(link, "/") {
				at = "/"
			}
			rest = link + "/" + rest
		case errors.Is(err, unix.EINVAL), errors.Is(err, fs.ErrNotExist): // it is no link
			at = next
		default:
			return "", err
		}
	}
	return filepath.Join(root, at), nil
}
