package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// Names of the entries that the shim keeps in a bundle. The first four are
// also read and written by containerd's own shim.
const (
	optionsFile = "options.json"
	runtimeFile = "runtime"
	exitFile    = "exit.json"
	initPidFile = "init.pid"
	addressFile = "address"
	configFile  = "config.json"
	crashFile   = "crash.txt"
)

// maxRecord bounds what is read of a small bundle file that others may have
// written.
const maxRecord = 1 << 20

// Bundle is the folder of one container.
type Bundle string

// Path of an entry of the bundle.
func (b Bundle) Path(name string) string { return path.Join(string(b), name) }

// Rootfs is where the root filesystem is mounted.
func (b Bundle) Rootfs() string { return b.Path("rootfs") }

// Work is containerd's folder for the container that outlives a reboot; a
// link in the bundle.
func (b Bundle) Work() string { return b.Path("work") }

// InitPidFile is where the runtime writes the pid of the init process.
func (b Bundle) InitPidFile() string { return b.Path(initPidFile) }

// CrashFile is what a shim leaves that dies of a fault of its own.
func (b Bundle) CrashFile() string { return b.Path(crashFile) }

// maxCrash is what is read of that file: it begins with what has happened and
// the stack that it happened on.
const maxCrash = 8 << 10

// ReadCrash returns the beginning of what the shim has left, empty as a rule.
func (b Bundle) ReadCrash() (string, error) {
	f, err := openRegular(b.CrashFile(), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxCrash))
	return string(text), err
}

// WriteOptions keeps the options for the delete action, which is given none.
func (b Bundle) WriteOptions(o Options) error {
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if err := b.Replace(optionsFile, data); err != nil {
		return err
	}
	return b.Replace(runtimeFile, []byte(o.BinaryName))
}

// ReadOptions of an earlier WriteOptions. No file is no error: a shim that
// died early wrote none.
func (b Bundle) ReadOptions() (Options, error) {
	var o Options
	data, err := b.Read(optionsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return o, fmt.Errorf("%s: %w", b.Path(optionsFile), err)
	}
	return o, nil
}

// WriteAddress keeps the shim's socket address, which containerd 1.7 and the
// daemon's migration read.
func (b Bundle) WriteAddress(address string) error {
	return b.Replace(addressFile, []byte(address))
}

// ReadAddress returns what WriteAddress kept.
func (b Bundle) ReadAddress() (string, error) {
	data, err := b.Read(addressFile)
	return string(data), err
}

// Replace writes a file of the bundle so that a reader sees the old or the
// new content, never a part, whoever else writes it at the same time. What was
// there under the name, a link or a FIFO too, is replaced and not followed.
func (b Bundle) Replace(name string, data []byte) error {
	temp, err := os.CreateTemp(string(b), "."+name+"-")
	if err != nil {
		return err
	}
	_, err = temp.Write(data)
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), b.Path(name))
	}
	if err != nil {
		os.Remove(temp.Name())
	}
	return err
}

// Remove removes a file that Replace has written. That there is none is no error.
func (b Bundle) Remove(name string) error {
	if err := os.Remove(b.Path(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Read reads a file that Replace has written, or says fs.ErrNotExist.
func (b Bundle) Read(name string) ([]byte, error) {
	return ReadRegular(b.Path(name), maxRecord)
}

// ReadRegular reads a regular file of at most limit bytes. It follows no link
// and never blocks on a FIFO.
func ReadRegular(path string, limit int64) ([]byte, error) {
	f, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}

// ReadTail reads the end of a regular file, at most limit bytes.
func ReadTail(path string, limit int64) ([]byte, error) {
	f, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > limit {
		if _, err := f.Seek(-limit, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// openRegular opens a regular file, and nothing else.
func openRegular(path string, access int) (*os.File, error) {
	f, err := os.OpenFile(path, access|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
