package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// This file makes block devices of files: loop(4). LOOP_CONFIGURE came with
// Linux 5.8; before, the same takes two calls or three.

const (
	loopControl = "/dev/loop-control"
	loopDevice  = "/dev/loop"
	// loopTries bounds how often a free device may be snatched away.
	loopTries = 100
)

type loopOptions struct {
	readOnly, directIO bool
}

// attachLoop makes a device of the file at path. The kernel frees it when it is
// neither open nor mounted any more: the caller mounts it and closes the file.
func attachLoop(path string, o loopOptions) (*os.File, error) {
	mode := os.O_RDWR
	if o.readOnly {
		mode = os.O_RDONLY
	}
	backing, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return nil, fmt.Errorf("open the file for a loop device: %w", err)
	}
	defer backing.Close()
	control, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("get a loop device: %w", err)
	}
	defer control.Close()
	for try := range loopTries {
		var device *os.File
		device, err = attachFreeLoop(control, backing, mode, o)
		if err == nil {
			return device, nil
		}
		// Nothing reserves the device that is free: somebody else was faster.
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		// As many as want one must not meet again; nothing tells when they have.
		time.Sleep(time.Duration(time.Now().Nanosecond()/1000%(try+1)) * time.Millisecond)
	}
	return nil, fmt.Errorf("make a loop device of %s: %w", path, err)
}

func attachFreeLoop(control, backing *os.File, mode int, o loopOptions) (*os.File, error) {
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("find a free one: %w", err)
	}
	device, err := os.OpenFile(loopDevice+strconv.Itoa(number), mode, 0)
	if err != nil {
		return nil, err
	}
	if err := configureLoop(device, backing, o); err != nil {
		device.Close()
		return nil, fmt.Errorf("set up %s: %w", device.Name(), err)
	}
	return device, nil
}

func configureLoop(device, backing *os.File, o loopOptions) error {
	info := unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}
	copy(info.File_name[:len(info.File_name)-1], backing.Name())
	if o.readOnly {
		info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: info}
	if o.directIO {
		config.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	err := unix.IoctlLoopConfigure(int(device.Fd()), &config)
	// An older kernel does not know the number. One of them takes what it does
	// not know for an argument that is wrong.
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
		return configureLoopByParts(device, backing, info, o.directIO)
	}
	return err
}

func configureLoopByParts(device, backing *os.File, info unix.LoopInfo64, directIO bool) (err error) {
	fd := int(device.Fd())
	if err := unix.IoctlSetInt(fd, unix.LOOP_SET_FD, int(backing.Fd())); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
		}
	}()
	if err := unix.IoctlLoopSetStatus64(fd, &info); err != nil {
		return err
	}
	if directIO {
		return unix.IoctlSetInt(fd, unix.LOOP_SET_DIRECT_IO, 1)
	}
	return nil
}
