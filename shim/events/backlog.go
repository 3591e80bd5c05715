package events

// This file keeps what containerd has not taken: the oldest and the newest
// events in bounded memory, and those between them, if there are too many, in a
// file without a name.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// headLimit bounds the encoded events that are kept before anything goes to
	// the file, batchSize those that are written to it or read from it at once.
	headLimit = 256 << 10
	batchSize = 64 << 10
	// lengthSize is how many bytes tell the length of an event in the file.
	lengthSize = 4
)

// backlog is a queue of encoded events. It is the sum of three: first head, then
// what is in the file, then tail. All of it is guarded by the queue's mutex, which
// is not held over reading and writing: read and write have what they need from
// before, and tell what they have done after.
type backlog struct {
	// headLimit and batchSize are the constants, but in tests.
	headLimit, batchSize int

	head, tail         [][]byte
	headSize, tailSize int
	// moved is how many events have left tail: who writes some of them finds out
	// whether they are still there.
	moved uint64

	// file has inFile events, from start to end; nil is none.
	file       *os.File
	inFile     int
	start, end int64
	// writing tells that somebody does, which is never more than one.
	writing bool
	// enough is how large tail must be for another attempt to write: more than a
	// batch after one that has failed.
	enough int
}

func newBacklog() backlog {
	return backlog{headLimit: headLimit, batchSize: batchSize, enough: batchSize}
}

func (b *backlog) len() int { return len(b.head) + b.inFile + len(b.tail) }

func (b *backlog) push(event []byte) {
	if len(b.tail) == 0 && b.inFile == 0 && b.headSize+len(event) <= b.headLimit {
		b.head = append(b.head, event)
		b.headSize += len(event)
		return
	}
	b.tail = append(b.tail, event)
	b.tailSize += len(event)
}

// first is the oldest event, or nil if there is none in memory. Then, if read is
// true, the next ones have to be read.
func (b *backlog) first() (event []byte, read bool) {
	if len(b.head) == 0 && b.inFile == 0 {
		b.head, b.headSize = b.tail, b.tailSize
		b.moved += uint64(len(b.tail))
		b.tail, b.tailSize, b.enough = nil, 0, b.batchSize
	}
	if len(b.head) > 0 {
		return b.head[0], false
	}
	return nil, b.inFile > 0
}

// pop removes the oldest event, which is in memory.
func (b *backlog) pop() {
	b.headSize -= len(b.head[0])
	b.head[0] = nil
	if b.head = b.head[1:]; len(b.head) == 0 {
		b.head = nil
	}
}

// wantsWriting tells whether there is enough to write, and nobody does.
func (b *backlog) wantsWriting() bool { return !b.writing && b.tailSize >= b.enough }

// batch is what is to be written next, the oldest events of tail, as they are in
// the file.
func (b *backlog) batch() (encoded []byte, events int) {
	for size := 0; events < len(b.tail) && size < b.batchSize; events++ {
		e := b.tail[events]
		size += len(e)
		encoded = binary.LittleEndian.AppendUint32(encoded, uint32(len(e)))
		encoded = append(encoded, e...)
	}
	return encoded, events
}

// written makes events of the file of the first n of tail, unless they have left
// it meanwhile: moved is as it was, size what they take in the file.
func (b *backlog) written(n int, size int64, moved uint64) {
	b.enough = b.batchSize
	if moved != b.moved {
		return
	}
	for _, e := range b.tail[:n] {
		b.tailSize -= len(e)
	}
	clear(b.tail[:n])
	if b.tail = b.tail[n:]; len(b.tail) == 0 {
		b.tail = nil
	}
	b.moved += uint64(n)
	b.inFile += n
	b.end += size
}

// notWritten makes the next attempt wait for more events.
func (b *backlog) notWritten() { b.enough = b.tailSize + b.batchSize }

// readIn puts events into head that were read from the file, where they take
// size. What is left there must be what is said to be.
func (b *backlog) readIn(events [][]byte, size int64) error {
	if inFile, start := b.inFile-len(events), b.start+size; inFile < 0 || (inFile == 0) != (start == b.end) {
		return errTorn
	}
	b.head = events
	for _, e := range events {
		b.headSize += len(e)
	}
	b.inFile -= len(events)
	b.start += size
	return nil
}

// unreadable drops what is in the file, and tells how many events that were.
func (b *backlog) unreadable() (lost int) {
	lost, b.inFile, b.start = b.inFile, 0, b.end
	return lost
}

// tidy closes a file in which nothing is left.
func (b *backlog) tidy() {
	if b.file != nil && b.inFile == 0 && !b.writing {
		b.file.Close()
		b.file, b.start, b.end = nil, 0, 0
	}
}

// readEvents reads those that begin at start, at least one and else about most
// bytes, and returns how many bytes they take.
func readEvents(file io.ReaderAt, start, end int64, most int) (events [][]byte, size int64, err error) {
	buf := make([]byte, min(end-start, max(int64(most), lengthSize)))
	for {
		if _, err := file.ReadAt(buf, start); err != nil {
			return nil, 0, fmt.Errorf("read events: %w", err)
		}
		rest := buf
		for len(rest) >= lengthSize {
			n := int(binary.LittleEndian.Uint32(rest))
			if n == 0 { // there is no such event
				return nil, 0, errTorn
			}
			if n > len(rest)-lengthSize {
				break
			}
			events = append(events, rest[lengthSize:lengthSize+n:lengthSize+n])
			rest = rest[lengthSize+n:]
		}
		if len(events) > 0 {
			return events, int64(len(buf) - len(rest)), nil
		}
		// The first is larger than buf.
		if len(buf) < lengthSize {
			return nil, 0, errTorn
		}
		need := lengthSize + int64(binary.LittleEndian.Uint32(buf))
		if start+need > end {
			return nil, 0, errTorn
		}
		buf = make([]byte, need)
	}
}

var errTorn = errors.New("read events: the file has none where there must be one")

// giveBack gives the filesystem what was before an offset. Not every one takes it.
func giveBack(file *os.File, before int64) {
	if conn, err := file.SyscallConn(); err == nil {
		conn.Control(func(fd uintptr) {
			unix.Fallocate(int(fd), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, before)
		})
	}
}
