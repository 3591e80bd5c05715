package stdio

// This file keeps output that nobody takes: in memory or in a file, the oldest
// of which is dropped when there is no room.

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/cleatrun/cleat/oci"
)

// ring holds bytes in the order in which they came. It is no more than limit
// bytes large, and takes nothing when it is empty.
type ring struct {
	store store
	limit int64 // as asked for
	// room is limit, or what the store has turned out to have room for.
	room int64
	// head is where the oldest byte is in the store, size how many there are,
	// top how much of the store was written to.
	head, size, top int64
}

// store is what a ring is on.
type store interface {
	io.ReaderAt
	io.WriterAt
	// empty gives back what the store takes: nothing of it is read again.
	empty()
	io.Closer
}

// Loss is how much was dropped.
type Loss struct{ Bytes, Lines int64 }

func (l *Loss) add(b []byte) {
	l.Bytes += int64(len(b))
	l.Lines += int64(bytes.Count(b, []byte{'\n'}))
}

func newRing(s store, limit int64) *ring { return &ring{store: s, limit: limit, room: limit} }

// append keeps b, and drops what there is no room for: the oldest.
func (k *ring) append(b []byte) (lost Loss) {
	for len(b) > 0 {
		if over := int64(len(b)) - k.room; over > 0 { // cannot be kept whatever else is dropped
			k.drop(k.size, &lost)
			if i := bytes.IndexByte(b[over-1:], '\n'); i >= 0 {
				over += int64(i)
			}
			lost.add(b[:over])
			b = b[over:]
			continue
		}
		if over := k.size + int64(len(b)) - k.room; over > 0 {
			// A good part of it at once: it has to be read, to count its lines.
			k.drop(max(over, min(k.size, k.room/16)), &lost)
		}
		tail := (k.head + k.size) % k.room
		n, err := k.store.WriteAt(b[:min(int64(len(b)), k.room-tail)], tail)
		k.size += int64(n)
		tail += int64(n)
		k.top = max(k.top, tail)
		b = b[n:]
		switch {
		case err == nil:
		case tail == k.top && k.top < k.room: // no room for more than this
			k.room = k.top
		case k.size > 0:
			k.drop(k.size, &lost)
		default:
			lost.add(b)
			return lost
		}
	}
	if k.size == 0 {
		k.reset()
	}
	return lost
}

// drop drops at least need bytes, to the end of a line if that is not far.
func (k *ring) drop(need int64, lost *Loss) {
	const far = 64 << 10
	buf := pipeBuffers.Get().(*[]byte)
	defer pipeBuffers.Put(buf)
	for done := int64(0); k.size > 0 && done < need+far; {
		b, err := k.peek(*buf)
		if err != nil { // nothing of it can be had any more
			lost.Bytes += k.size
			k.discard(k.size)
			return
		}
		cut := int64(len(b))
		if must := need - done; must <= cut {
			from := max(must-1, 0) // where a line may end just so
			if i := bytes.IndexByte(b[from:], '\n'); i >= 0 {
				lost.add(b[:from+int64(i)+1])
				k.discard(from + int64(i) + 1)
				return
			}
		}
		lost.add(b)
		k.discard(cut)
		done += cut
	}
}

// peek reads the oldest bytes into buf, which stay.
func (k *ring) peek(buf []byte) ([]byte, error) {
	n := min(int64(len(buf)), k.size, k.room-k.head)
	if n == 0 {
		return nil, nil
	}
	if _, err := k.store.ReadAt(buf[:n], k.head); err != nil {
		return nil, fmt.Errorf("read kept output: %w", err)
	}
	return buf[:n], nil
}

// discard forgets the n oldest bytes.
func (k *ring) discard(n int64) {
	if k.size -= n; k.size == 0 {
		k.reset()
		return
	}
	if k.head += n; k.head >= k.room {
		k.head -= k.room
	}
}

func (k *ring) reset() {
	k.store.empty()
	k.head, k.top, k.room = 0, 0, k.limit
}

// memory is a store that has as many blocks as it needs.
type memory map[int64][]byte

const memoryBlock = 64 << 10

func (m memory) ReadAt(b []byte, at int64) (int, error) {
	for n := 0; n < len(b); {
		block := m[(at+int64(n))/memoryBlock]
		if block == nil {
			return n, io.ErrUnexpectedEOF
		}
		n += copy(b[n:], block[(at+int64(n))%memoryBlock:])
	}
	return len(b), nil
}

func (m memory) WriteAt(b []byte, at int64) (int, error) {
	for n := 0; n < len(b); {
		i := (at + int64(n)) / memoryBlock
		if m[i] == nil {
			m[i] = make([]byte, memoryBlock)
		}
		n += copy(m[i][(at+int64(n))%memoryBlock:], b[n:])
	}
	return len(b), nil
}

func (m memory) empty()       { clear(m) }
func (m memory) Close() error { return nil }

// spill is a store in a file without a name: nothing is left of it, however the
// shim ends.
type spill struct{ *os.File }

func newSpill(dir string) (spill, error) {
	f, err := oci.UnnamedFile(dir)
	if err != nil {
		return spill{}, fmt.Errorf("spill output: %w: %w", err, class(err))
	}
	return spill{f}, nil
}

func (s spill) empty() { s.Truncate(0) }
