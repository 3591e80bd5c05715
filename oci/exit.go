package oci

// How a container has ended, kept where the delete action finds it when there is
// no shim any more. Room for it is taken when the container is created, while who
// asks can still be told that there is none: a container may end on a full disk.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Exit is what is known of the end of a container's init process. Timestamp,
// Pid and Status have the names under which containerd's own shim keeps them.
type Exit struct {
	Timestamp time.Time
	Pid       int
	Status    int
	// Signal is the number of the signal that ended the process, or 0.
	Signal int `json:",omitempty"`
	// OOM tells that the kernel's OOM killer took a process of the container.
	OOM bool `json:",omitempty"`
	// Deleted tells that the runtime's state, the root filesystem and the
	// cgroup are gone: nothing is left for the delete action to do.
	Deleted bool `json:",omitempty"`
}

const (
	exitRoom    = ".exit.json-room"
	exitWritten = ".exit.json-written"
	// exitSize is what a filesystem does not keep within an inode. The rest of a
	// record are blanks, which are nothing to JSON.
	exitSize = 4096
)

// ReserveExit takes the room for WriteExit. That it is taken already is no error.
func (b Bundle) ReserveExit() error {
	f, err := os.OpenFile(b.Path(exitRoom), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.Write(exitPage(nil))
	if err = errors.Join(err, f.Close()); err != nil {
		b.ReleaseExit()
	}
	return err
}

// ReleaseExit undoes ReserveExit.
func (b Bundle) ReleaseExit() error { return b.Remove(exitRoom) }

// WriteExit records the end of the init process. The record survives a crash
// of the shim, not of the host, so it is not synced. The first one needs no room
// that is not reserved; it appears as a whole.
func (b Bundle) WriteExit(e Exit) error {
	data := e.appendJSON(nil)
	if b.writeReserved(data) == nil {
		return nil
	}
	return b.Replace(exitFile, data)
}

// appendJSON is what json.Marshal makes of it, without what that learns of a type
// before it writes the first of it.
func (e Exit) appendJSON(b []byte) []byte {
	b = e.Timestamp.AppendFormat(append(b, `{"Timestamp":"`...), time.RFC3339Nano)
	b = strconv.AppendInt(append(b, `","Pid":`...), int64(e.Pid), 10)
	b = strconv.AppendInt(append(b, `,"Status":`...), int64(e.Status), 10)
	if e.Signal != 0 {
		b = strconv.AppendInt(append(b, `,"Signal":`...), int64(e.Signal), 10)
	}
	if e.OOM {
		b = append(b, `,"OOM":true`...)
	}
	if e.Deleted {
		b = append(b, `,"Deleted":true`...)
	}
	return append(b, '}')
}

// writeReserved writes to what is reserved, which one of several writers gets: a
// file that may be read already is never written to.
func (b Bundle) writeReserved(data []byte) error {
	if len(data) > exitSize {
		return unix.EFBIG
	}
	written := b.Path(exitWritten)
	if err := os.Rename(b.Path(exitRoom), written); err != nil {
		return err
	}
	f, err := openRegular(written, os.O_WRONLY)
	if err == nil {
		_, err = f.WriteAt(exitPage(data), 0)
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = os.Rename(written, b.Path(exitFile))
	}
	if err != nil {
		os.Remove(written)
	}
	return err
}

// exitPage is a record and blanks.
func exitPage(record []byte) []byte {
	page := make([]byte, exitSize)
	for i := copy(page, record); i < exitSize; i++ {
		page[i] = ' '
	}
	return page
}

// ReadExit returns the recorded end of the init process, or fs.ErrNotExist.
func (b Bundle) ReadExit() (Exit, error) {
	var e Exit
	data, err := b.Read(exitFile)
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return e, fmt.Errorf("%s: %w", b.Path(exitFile), err)
	}
	return e, nil
}
