package rootfs

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file makes mounts through which files belong to other users than on disk.
//
// Kernel facts: open_tree(2) and move_mount(2) came with Linux 5.2,
// mount_setattr(2) and idmapped mounts with 5.12, idmapped layers of overlays
// with 5.19. Which ids stand for which is told to the kernel by a user namespace
// that has these maps.

// tree is of mounts that are nowhere yet.
type tree int

// cloneTree copies the mount that path is on from there on, with all below it or
// without.
func cloneTree(path string, all bool) (tree, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if all {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return -1, fmt.Errorf("clone the mount of %q: %w", path, err)
	}
	return tree(fd), nil
}

// takeTree takes the uppermost mount from point. With an error, there is nothing
// left of it.
func takeTree(point string) (tree, error) {
	t, err := cloneTree(point, false)
	if gone := detach(point); gone != nil {
		if err == nil {
			unix.Close(int(t))
		}
		return -1, errors.Join(err, gone)
	}
	return t, err
}

// idmapped puts the tree at point, as users see it; with further attributes
// MOUNT_ATTR_*. The tree is gone afterwards, or mounted.
func (t tree) idmapped(users *os.File, attributes uint64, point string) error {
	if err := unix.MountSetattr(int(t), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_IDMAP | attributes,
		Propagation: unix.MS_PRIVATE,
		Userns_fd:   uint64(users.Fd()),
	}); err != nil {
		unix.Close(int(t))
		return fmt.Errorf("map the users of a mount for %q: %w", point, err)
	}
	return t.put(point)
}

// put mounts the tree.
func (t tree) put(point string) error {
	defer unix.Close(int(t))
	if err := unix.MoveMount(int(t), "", unix.AT_FDCWD, point, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("put a mount on %q: %w", point, err)
	}
	return nil
}

// userNamespace makes one with these maps. It lives as long as the file. The
// caller is within a child.Launching, or who reaps orphans might take the child.
func userNamespace(uidmap, gidmap string) (*os.File, error) {
	uids, err := parseRanges(uidmap)
	if err != nil {
		return nil, fmt.Errorf("uidmap: %w", err)
	}
	gids, err := parseRanges(gidmap)
	if err != nil {
		return nil, fmt.Errorf("gidmap: %w", err)
	}
	// What is asked for about a parent is the kernel's about one thread of it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// A process is born into the namespace and stopped at once: as it is traced,
	// the kernel stops it when it has replaced its program, before the first
	// instruction. Should its tracer end, the signal ends it, too.
	holder, err := os.StartProcess("/proc/self/exe", []string{"cleat-user-namespace"}, &os.ProcAttr{
		Env: []string{}, // nil is the shim's
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: uids,
			GidMappings: gids,
			Ptrace:      true,
			Pdeathsig:   unix.SIGKILL,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("start a process in it: %w", err)
	}
	// Its number stays its own until it is waited for, dead or alive.
	defer func() {
		holder.Kill()
		holder.Wait()
	}()
	return os.Open("/proc/" + strconv.Itoa(holder.Pid) + "/ns/user")
}

// parseRanges reads "container:host:size,...".
func parseRanges(list string) (ranges []syscall.SysProcIDMap, err error) {
	for text := range strings.SplitSeq(list, ",") {
		var numbers [3]int
		parts := strings.Split(text, ":")
		if len(parts) != len(numbers) {
			return nil, fmt.Errorf("%q is not container:host:size", text)
		}
		for i, part := range parts {
			n, err := strconv.Atoi(part)
			if err != nil || n < 0 {
				return nil, fmt.Errorf("%q is not container:host:size", text)
			}
			numbers[i] = n
		}
		ranges = append(ranges, syscall.SysProcIDMap{ContainerID: numbers[0], HostID: numbers[1], Size: numbers[2]})
	}
	return ranges, nil
}
