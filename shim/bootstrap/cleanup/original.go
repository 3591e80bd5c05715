package cleanup

import (
	"os"

	"github.com/cleatrun/cleat/oci"
)

// original is the bundle as it was when the action began. containerd can run two
// at once for one container, when its shim dies during a create. It removes the
// bundle when the first has ended, and a client may have made the container anew,
// in a bundle of the same name, before the second has.
type original struct {
	bundle oci.Bundle
	dir    *os.File // nil: there was none
}

func openBundle(bundle oci.Bundle) original {
	dir, _ := os.Open(string(bundle))
	return original{bundle: bundle, dir: dir}
}

// there tells whether the bundle is still there.
func (o original) there() bool {
	return o.dir != nil && o.compare(func(now, then os.FileInfo) bool { return os.SameFile(now, then) })
}

// replaced tells whether there is another now, whose container is none of ours.
func (o original) replaced() bool {
	if o.dir == nil {
		_, err := os.Stat(string(o.bundle))
		return err == nil
	}
	return o.compare(func(now, then os.FileInfo) bool { return !os.SameFile(now, then) })
}

// compare answers false when there is no bundle.
func (o original) compare(answer func(now, then os.FileInfo) bool) bool {
	then, err := o.dir.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(string(o.bundle))
	return err == nil && answer(now, then)
}

func (o original) close() {
	if o.dir != nil {
		o.dir.Close()
	}
}
