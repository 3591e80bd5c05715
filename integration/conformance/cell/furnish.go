package cell

// The files of a cell.

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// furnish gives the cell folders of its own, which are in dir, in the places
// where the host's would be used, and the programs of c.
func furnish(dir string, c Command) error {
	// Nothing that is mounted from here on is seen outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the cell's mounts private: %w", err)
	}
	if err := remountCgroups(); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	run := filepath.Join(dir, "run")
	if err := addPrograms(run, c); err != nil {
		return err
	}
	if err := coverEtc(filepath.Join(dir, "etc")); err != nil {
		return err
	}
	// /tmp is the last because dir may be below it.
	for _, cover := range []struct {
		from, over string
		mode       os.FileMode
	}{
		{"run", "/run", 0o755},
		{"lib", "/var/lib", 0o755},
		{"opt", "/opt", 0o755},
		{"tmp", "/tmp", 0o777 | os.ModeSticky},
	} {
		from := filepath.Join(dir, cover.from)
		if err := os.MkdirAll(from, 0o755); err != nil {
			return fmt.Errorf("furnish the cell: %w", err)
		}
		if err := os.Chmod(from, cover.mode); err != nil {
			return fmt.Errorf("furnish the cell: %w", err)
		}
		if _, err := os.Stat(cover.over); os.IsNotExist(err) {
			continue
		}
		if err := mount(from, cover.over, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
	}
	return nil
}

// addPrograms mounts the folders of programs where Folder says, as seen
// when run has become /run, and makes the links.
func addPrograms(run string, c Command) error {
	cell := filepath.Join(run, "cell")
	for _, sub := range []string{"home", "links"} {
		if err := os.MkdirAll(filepath.Join(cell, sub), 0o755); err != nil {
			return fmt.Errorf("furnish the cell: %w", err)
		}
	}
	for i, folder := range c.Folders {
		point := filepath.Join(cell, filepath.Base(Folder(i)))
		if err := os.Mkdir(point, 0o755); err != nil {
			return fmt.Errorf("furnish the cell: %w", err)
		}
		if err := mount(folder, point, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		for link, program := range c.Links {
			if _, err := os.Stat(filepath.Join(folder, program)); err != nil {
				continue
			}
			err := os.Symlink(filepath.Join(Folder(i), program), filepath.Join(cell, "links", link))
			// The first folder that has the program wins, as in PATH.
			if err != nil && !os.IsExist(err) {
				return fmt.Errorf("furnish the cell: %w", err)
			}
		}
	}
	return nil
}

// coverEtc lets the cell write to its /etc, which is the host's to begin with.
func coverEtc(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("furnish the cell: %w", err)
	}
	// What is below dir may not be able to carry an overlay; a tmpfs is.
	if err := mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		return err
	}
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, sub := range []string{upper, work} {
		if err := os.Mkdir(sub, 0o755); err != nil {
			return fmt.Errorf("furnish the cell: %w", err)
		}
	}
	return mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir="+upper+",workdir="+work)
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s in the cell: %w", source, target, err)
	}
	return nil
}
