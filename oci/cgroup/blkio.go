package cgroup

// This file reads what a group on V1 has read from and written to disks
// (Documentation/admin-guide/cgroup-v1/blkio-controller.rst).

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cleatrun/cleat/oci/cgroup/metrics1"
	"golang.org/x/sys/unix"
)

// partitions names disks. It can be changed by tests.
var partitions = "/proc/partitions"

// readBlkIO reads what the scheduler CFQ has counted (until Linux 5.0), and where
// that has nothing what the limits of the block layer have.
func readBlkIO(r *reader, m *metrics1.Metrics) error {
	b := new(metrics1.BlkIOStat)
	m.Blkio = b
	var failed error
	if r.has("blkio.io_serviced_recursive") {
		for _, f := range [...]struct {
			name    string
			entries *[]*metrics1.BlkIOEntry
		}{
			{"blkio.sectors_recursive", &b.SectorsRecursive},
			{"blkio.io_service_bytes_recursive", &b.IoServiceBytesRecursive},
			{"blkio.io_serviced_recursive", &b.IoServicedRecursive},
			{"blkio.io_queued_recursive", &b.IoQueuedRecursive},
			{"blkio.io_service_time_recursive", &b.IoServiceTimeRecursive},
			{"blkio.io_wait_time_recursive", &b.IoWaitTimeRecursive},
			{"blkio.io_merged_recursive", &b.IoMergedRecursive},
			{"blkio.time_recursive", &b.IoTimeRecursive},
		} {
			if failed = readBlkIOEntries(r, f.name, f.entries); failed != nil {
				break
			}
		}
	}
	lists := [][]*metrics1.BlkIOEntry{
		b.SectorsRecursive, b.IoServiceBytesRecursive, b.IoServicedRecursive, b.IoQueuedRecursive,
		b.IoServiceTimeRecursive, b.IoWaitTimeRecursive, b.IoMergedRecursive, b.IoTimeRecursive,
	}
	counted := 0
	for _, list := range lists {
		counted += len(list)
	}
	if failed == nil && counted == 0 {
		failed = readBlkIOEntries(r, "blkio.throttle.io_serviced", &b.IoServicedRecursive)
		if failed == nil {
			failed = readBlkIOEntries(r, "blkio.throttle.io_service_bytes", &b.IoServiceBytesRecursive)
		}
		lists = [][]*metrics1.BlkIOEntry{b.IoServicedRecursive, b.IoServiceBytesRecursive}
	}
	if err := nameDisks(r, lists); err != nil {
		m.Blkio = new(metrics1.BlkIOStat)
		return err
	}
	return failed
}

// readBlkIOEntries reads lines of a disk, most with an operation, and a number:
//
//	8:0 Read 4096
//	Total 4096
func readBlkIOEntries(r *reader, name string, list *[]*metrics1.BlkIOEntry) error {
	text, err := r.read(name)
	if err != nil {
		return err
	}
	for line := []byte(nil); len(text) > 0; {
		line, text = nextLine(text)
		e, err := blkIOEntry(line)
		if err != nil {
			return r.failed("parse", name, err)
		}
		if e != nil {
			*list = append(*list, e)
		}
	}
	return nil
}

// blkIOEntry is nil for a line with the sum of others.
func blkIOEntry(line []byte) (*metrics1.BlkIOEntry, error) {
	line = bytes.TrimSuffix(line, []byte("\r"))
	var fields [5][]byte
	n := 0
	for len(line) > 0 && n < len(fields) {
		i := bytes.IndexAny(line, " :")
		if i < 0 {
			i = len(line)
		}
		if i > 0 {
			fields[n] = line[:i]
			n++
		}
		line = line[min(i+1, len(line)):]
	}
	if n == 2 && string(fields[0]) == "Total" {
		return nil, nil
	}
	if n < 3 {
		return nil, fmt.Errorf("line of %d fields: %w", n, errFormat)
	}
	e, value := new(metrics1.BlkIOEntry), fields[2]
	if n == 4 {
		e.Op, value = operation(fields[2]), fields[3]
	}
	var errs [3]error
	e.Major, errs[0] = unsigned(fields[0])
	e.Minor, errs[1] = unsigned(fields[1])
	e.Value, errs[2] = unsigned(value)
	return e, errors.Join(errs[:]...)
}

// operation is a text for each of those that the kernel knows.
func operation(name []byte) string {
	for _, known := range [...]string{"Read", "Write", "Sync", "Async", "Discard", "Total"} {
		if string(name) == known {
			return known
		}
	}
	return validText(name)
}

// nameDisks gives entries the device files of their disks, as far as these are
// known. Most groups have no entries, and need no names.
func nameDisks(r *reader, lists [][]*metrics1.BlkIOEntry) error {
	var text []byte
	var last *metrics1.BlkIOEntry // its disk mostly is that of the next, too
	for _, list := range lists {
		for _, e := range list {
			if last != nil && last.Major == e.Major && last.Minor == e.Minor {
				e.Device = last.Device
				continue
			}
			if text == nil {
				var err error
				if text, err = r.readPartitions(); err != nil {
					return err
				}
			}
			e.Device = disk(text, e.Major, e.Minor)
			last = e
		}
	}
	return nil
}

// readPartitions reads a file that comes in parts, other than those of cgroups.
func (r *reader) readPartitions() ([]byte, error) {
	fd, err := openat(unix.AT_FDCWD, partitions, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for n := 0; ; {
		if n == len(r.buf) {
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
		}
		more, err := readFile(fd, r.buf[n:])
		if err != nil || more == 0 {
			return r.buf[:n], err
		}
		n += more
	}
}

// disk finds the name of a disk in the lines of /proc/partitions, which begin
// after the second:
//
//	8        0   976762584 sda
func disk(text []byte, major, minor uint64) string {
	for line, n := []byte(nil), 0; len(text) > 0; n++ {
		line, text = nextLine(text)
		if n < 2 {
			continue
		}
		first, line := nextField(line)
		second, line := nextField(line)
		_, line = nextField(line)
		name, _ := nextField(line)
		a, errA := unsigned(first)
		b, errB := unsigned(second)
		if errA == nil && errB == nil && a == major && b == minor && len(name) > 0 {
			return filepath.Join("/dev", validText(name))
		}
	}
	return ""
}
