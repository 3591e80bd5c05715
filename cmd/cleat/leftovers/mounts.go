package leftovers

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cleatrun/cleat/oci/rootfs"
	"github.com/moby/sys/mountinfo"
)

// mounts are the root filesystems in folders that are no bundles any more. The
// ones in bundles go with these.
func (s Search) mounts(bundles []bundle) []Leftover {
	var found []Leftover
	for _, state := range s.States {
		top := filepath.Join(state, tasks)
		mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(top))
		if err != nil {
			continue
		}
		for _, m := range mounts {
			parts := strings.Split(strings.TrimPrefix(m.Mountpoint, top+"/"), "/")
			// The uppermost mount of a folder: the others go with it.
			if len(parts) != 3 || parts[2] != "rootfs" {
				continue
			}
			dir := filepath.Join(top, parts[0], parts[1])
			if slices.ContainsFunc(bundles, func(b bundle) bool { return string(b.Bundle) == dir && b.socket != "" }) {
				continue
			}
			l := Leftover{Kind: Mount, Path: m.Mountpoint, Namespace: parts[0], ID: strings.TrimPrefix(parts[1], "."), Why: "it is in no bundle of a shim"}
			if !slices.ContainsFunc(found, func(f Leftover) bool { return f.Path == l.Path }) {
				found = append(found, l)
			}
		}
	}
	return found
}

func removeMount(path string) error {
	if filepath.Base(path) != "rootfs" {
		return errors.New("it is no root filesystem")
	}
	if err := rootfs.Unmount(path); err != nil {
		return err
	}
	if left := mountsBelow(path); len(left) > 0 {
		return fmt.Errorf("%s is still mounted", left[0])
	}
	return nil
}
