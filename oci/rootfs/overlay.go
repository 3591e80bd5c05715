package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// This file mounts overlays: of more layers than a call of mount(2) can name,
// and of layers whose files belong to other users than on disk.
//
// An option lowerdir= is a list of paths with ":" between them, and "::" before
// those that hold data only. A backslash before a character of a path takes its
// meaning from it (Documentation/filesystems/overlayfs.rst).

const (
	overlayType = "overlay"
	lowerOption = "lowerdir="
)

// mountOverlay mounts it from the layers' common folder if the options do not
// fit otherwise.
func (c call) mountOverlay() error {
	if !c.fits() {
		if i, layers := c.layers(); i >= 0 {
			if dir := commonDir(layers); dir != "" {
				c.data = replaced(c.data, i, lowerOption+moved(layers, dir, ""))
				return c.doFrom(dir)
			}
		}
	}
	return c.do()
}

// mountIdmappedOverlay mounts an overlay whose lower layers are seen through an
// idmapped mount of their common folder. That mount is needed in a place that
// has a path only until the overlay is made, which keeps mounts of its own; its
// place is the root filesystem itself: whatever may happen there, nothing is
// left elsewhere.
func (c call) mountIdmappedOverlay(users *os.File) error {
	i, layers := c.layers()
	if i < 0 {
		return fmt.Errorf("idmapped mount of an overlay on %q: it has no option lowerdir", c.point)
	}
	dir := commonDir(layers)
	if dir == "" {
		return fmt.Errorf("idmapped mount of an overlay on %q: its layers have no folder but / in common", c.point)
	}
	below, err := cloneTree(unescaped(dir), true)
	if err != nil {
		return err
	}
	if err := below.idmapped(users, unix.MOUNT_ATTR_RDONLY, c.point); err != nil {
		return err
	}
	c.data = replaced(c.data, i, lowerOption+moved(layers, dir, escaped(c.point)+"/"))
	if err := c.mountOverlay(); err != nil {
		return errors.Join(err, detach(c.point))
	}
	// The layers cannot be taken away from beneath the overlay: both are, and the
	// overlay is put back.
	overlay, err := takeTree(c.point)
	if gone := detach(c.point); err != nil || gone != nil {
		if err == nil {
			unix.Close(int(overlay))
		}
		return errors.Join(err, gone)
	}
	return overlay.put(c.point)
}

// layers are the lower layers, as they are written, and which option names them;
// -1, when none does.
func (c call) layers() (option int, layers []string) {
	for i, text := range c.data {
		if list, ok := strings.CutPrefix(text, lowerOption); ok {
			return i, splitLayers(list)
		}
	}
	return -1, nil
}

// splitLayers parts a list at the colons that no backslash precedes.
func splitLayers(list string) (layers []string) {
	begin := 0
	for i := 0; i < len(list); i++ {
		switch list[i] {
		case '\\':
			i++
		case ':':
			layers = append(layers, list[begin:i])
			begin = i + 1
		}
	}
	return append(layers, list[begin:])
}

// commonDir is the folder, as it is written, in which or below which all layers
// are; "" when that is the root folder, or none.
func commonDir(layers []string) string {
	common := ""
	for _, layer := range layers {
		switch dir := path.Dir(layer); {
		case layer == "": // between "::"
		case common == "":
			common = dir
		default:
			for dir+"/" != common+"/" && !strings.HasPrefix(dir, common+"/") {
				common = path.Dir(common)
				if common == "/" || common == "." {
					return ""
				}
			}
		}
	}
	if common == "/" || common == "." {
		return ""
	}
	for _, layer := range layers {
		// "/a//b/c" does not begin with "/a/b", and "/a/b/../c" does.
		if layer != "" && path.Clean(layer) != layer {
			return ""
		}
	}
	return common
}

// moved is the list of the layers with prefix in place of the folder they have in
// common.
func moved(layers []string, dir, prefix string) string {
	list := make([]string, len(layers))
	for i, layer := range layers {
		if layer != "" {
			list[i] = prefix + strings.TrimLeft(strings.TrimPrefix(layer, dir), "/")
		}
	}
	return strings.Join(list, ":")
}

// escaped writes a path as a layer.
func escaped(path string) string {
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(path)
}

// unescaped is the path that a layer is.
func unescaped(layer string) string {
	var b strings.Builder
	for i := 0; i < len(layer); i++ {
		if layer[i] == '\\' && i+1 < len(layer) {
			i++
		}
		b.WriteByte(layer[i])
	}
	return b.String()
}

func replaced(list []string, i int, by string) []string {
	list = append([]string(nil), list...)
	list[i] = by
	return list
}

// doFrom is do with dir, which is written as a layer, as the working directory.
// A thread gets one of its own for it: the shim's is left alone.
func (c call) doFrom(dir string) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread, whose directory cannot be made the others'
		// again, ends with the goroutine. The main thread stays, and is what
		// /proc shows.
		runtime.LockOSThread()
		done <- func() error {
			here, err := os.Open(".")
			if err != nil {
				return err
			}
			defer here.Close()
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("get a working directory for one thread: %w", err)
			}
			defer unix.Fchdir(int(here.Fd()))
			if err := unix.Chdir(unescaped(dir)); err != nil {
				return &os.PathError{Op: "chdir", Path: dir, Err: err}
			}
			return c.do()
		}()
	}()
	return <-done
}
