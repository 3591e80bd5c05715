package events

// This file moves events to and from the file of the backlog. What waits for the
// disk here is waited for by nobody else: Publish is called with locks held.

import "os"

// readAttempts is how often a part of the file is tried to be read.
const readAttempts = 4

// beginSpilling sees to it that what is too much for memory goes to the file.
// Called with mu held.
func (q *Queue) beginSpilling() {
	if q.held || q.options.Spill == nil || !q.backlog.wantsWriting() {
		return
	}
	q.backlog.writing = true
	go q.spill()
}

// spill writes to the file as long as there is enough to write. What cannot be
// written, because the disk is full for instance, stays in memory, and is tried
// again with more.
func (q *Queue) spill() {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := &q.backlog
	for b.tailSize >= b.enough && !q.held {
		encoded, n := b.batch()
		file, at, moved := b.file, b.end, b.moved
		q.mu.Unlock()
		file, err := writeBatch(file, q.options.Spill, encoded, at)
		q.mu.Lock()
		if err != nil {
			if !q.unspilled {
				q.options.Log("events are kept in memory, which is not bounded: %v", err)
			}
			q.unspilled = true
			b.notWritten()
			continue
		}
		q.unspilled = false
		b.file = file
		b.written(n, int64(len(encoded)), moved)
	}
	b.writing = false
	b.tidy()
	q.tellStill()
}

// writeBatch writes to a file, a new one if there is none, and returns it.
func writeBatch(file *os.File, create func() (*os.File, error), encoded []byte, at int64) (*os.File, error) {
	fresh := file == nil
	if fresh {
		var err error
		if file, err = create(); err != nil {
			return nil, err
		}
	}
	if _, err := file.WriteAt(encoded, at); err != nil {
		if fresh {
			file.Close()
		}
		return nil, err
	}
	return file, nil
}

// refill reads the next events of the file. What cannot be read is lost: what
// comes after it must not be. Called by the sender, with mu held, which it gives
// away meanwhile.
func (q *Queue) refill() {
	b := &q.backlog
	file, start, end := b.file, b.start, b.end
	q.mu.Unlock()
	events, size, err := readEvents(file, start, end, b.batchSize)
	for n := 1; err != nil && n < readAttempts; n++ {
		q.rest(q.firstPause << n)
		events, size, err = readEvents(file, start, end, b.batchSize)
	}
	if err == nil {
		giveBack(file, start+size)
	}
	q.mu.Lock()
	if err == nil {
		err = b.readIn(events, size)
	}
	if err != nil {
		q.options.Log("%d events are lost: %v", b.unreadable(), err)
		q.tellEmpty()
	}
	b.tidy()
}
