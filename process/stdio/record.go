package stdio

// This file has what a pump knows, as plain data. A pump that is frozen has no
// bytes anywhere else.

import (
	"fmt"
	"os"
	"time"

	"github.com/cleatrun/cleat/oci/handover"
	"golang.org/x/sys/unix"
)

// PumpRecord is a pump. Which of its parts there are says of what kind it is.
type PumpRecord struct {
	Name  string
	Stage int  `json:",omitempty"`
	Done  bool `json:",omitempty"`
	// Source and Sink are files, or empty for the terminal; a relay to the log
	// file has no sink of its own.
	Source string        `json:",omitempty"`
	Sink   string        `json:",omitempty"`
	Splice *SpliceRecord `json:",omitempty"`
	Relay  *RelayRecord  `json:",omitempty"`
	Typist *TypistRecord `json:",omitempty"`
}

// SpliceRecord is what a splicer knows.
type SpliceRecord struct {
	Input bool `json:",omitempty"`
}

// TypistRecord is what a typist knows.
type TypistRecord struct {
	Pending []byte `json:",omitempty"`
	Midline bool   `json:",omitempty"`
	Ended   bool   `json:",omitempty"`
}

// RelayRecord is what a relay knows.
type RelayRecord struct {
	// Terminal tells that the source is one, ToFile that the sink is the log file.
	Terminal bool           `json:",omitempty"`
	ToFile   bool           `json:",omitempty"`
	Encoder  *EncoderRecord `json:",omitempty"`
	Kept     *RingRecord    `json:",omitempty"`

	Front   []byte        `json:",omitempty"`
	Ended   bool          `json:",omitempty"`
	Gone    bool          `json:",omitempty"`
	Midline bool          `json:",omitempty"`
	Lost    Loss          `json:",omitzero"`
	Pause   time.Duration `json:",omitempty"`
	RetryAt time.Time     `json:",omitzero"`

	DroppedBytes int64  `json:",omitempty"`
	DroppedLines int64  `json:",omitempty"`
	Failures     int64  `json:",omitempty"`
	Failure      string `json:",omitempty"`
}

// EncoderRecord is what an encoder knows.
type EncoderRecord struct {
	Format string
	Stream string
	Held   []byte    `json:",omitempty"`
	Began  time.Time `json:",omitzero"`
}

// RingRecord is kept output: what a file holds, or the bytes themselves.
type RingRecord struct {
	Limit, Room     int64
	File            string `json:",omitempty"`
	Head, Size, Top int64  `json:",omitempty"`
	Bytes           []byte `json:",omitempty"`
}

// record of a pump that is frozen. Of one that runs, for a trial, what its
// goroutine owns is not looked at.
func (p *pump) record(name string, files *handover.Files) PumpRecord {
	r := PumpRecord{Name: p.name, Stage: int(p.stage.Load()), Done: p.ended()}
	frozen := p.frozen.Load()
	switch passer := p.passer.(type) {
	case *splicer:
		r.Splice = &SpliceRecord{Input: passer.input}
		if !r.Done {
			r.Source, r.Sink = files.Add(name+"/source", passer.src.file), files.Add(name+"/sink", passer.dst.file)
		}
	case *typist:
		r.Typist = &TypistRecord{}
		if frozen {
			*r.Typist = TypistRecord{Pending: passer.pending, Midline: passer.midline, Ended: passer.ended}
		}
		if !r.Done {
			r.Source = files.Add(name+"/source", passer.src.file)
		}
	case *relay:
		r.Relay = passer.record(name, files, frozen)
		if r.Done {
			break
		}
		if !r.Relay.Terminal {
			r.Source = files.Add(name+"/source", passer.src.descriptor().file)
		}
		if to, is := passer.dst.(pipeSink); is {
			r.Sink = files.Add(name+"/sink", to.file)
		}
	}
	return r
}

func (r *relay) record(name string, files *handover.Files, frozen bool) *RelayRecord {
	record := &RelayRecord{
		DroppedBytes: r.droppedBytes.Load(), DroppedLines: r.droppedLines.Load(), Failures: r.failures.Load(),
	}
	if failure := r.failure.Load(); failure != nil {
		record.Failure = *failure
	}
	_, record.Terminal = r.src.(ttySource)
	_, record.ToFile = r.dst.(fileSink)
	if r.encoder != nil {
		record.Encoder = &EncoderRecord{Format: string(r.encoder.format), Stream: r.encoder.stream}
	}
	if r.kept != nil {
		record.Kept = &RingRecord{Limit: r.kept.limit, Room: r.kept.limit}
		if file, is := r.kept.store.(spill); is {
			record.Kept.File = files.Add(name+"/spill", file.File)
		}
	}
	if !frozen {
		return record
	}
	record.Front, record.Ended, record.Gone, record.Midline = r.front, r.ended, r.gone, r.midline
	record.Lost, record.Pause, record.RetryAt = r.lost, r.pause, r.retryAt
	if r.encoder != nil {
		record.Encoder.Held, record.Encoder.Began = r.encoder.held, r.encoder.began
	}
	if k := r.kept; k != nil {
		record.Kept.Room = k.room
		if record.Kept.File != "" {
			record.Kept.Head, record.Kept.Size, record.Kept.Top = k.head, k.size, k.top
		} else {
			record.Kept.Bytes = k.bytes()
		}
	}
	return record
}

// bytes are all that is kept.
func (k *ring) bytes() []byte {
	if k.size == 0 {
		return nil
	}
	all := make([]byte, 0, k.size)
	for at := int64(0); at < k.size; {
		from := (k.head + at) % k.room
		n := min(k.size-at, k.room-from)
		part := all[at : at+n]
		if _, err := k.store.ReadAt(part, from); err != nil {
			return all
		}
		all = all[:at+n]
		at += n
	}
	return all
}

func (l *logFile) record(name string, files *handover.Files) *FileRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &FileRecord{Stream: l.stream, Path: l.path, Size: l.limits.size, Files: l.limits.files, Midline: l.midline, Rotations: l.rotations}
	if l.file != nil {
		r.File = files.Add(name+"/log", l.file)
	}
	return r
}

func (t *taker) logFile(r FileRecord) *logFile {
	l := &logFile{stream: r.Stream, path: r.Path, limits: rotation{size: r.Size, files: r.Files}, midline: r.Midline, rotations: r.Rotations}
	if l.file = t.file(r.File); l.file != nil {
		var st unix.Stat_t
		if err := unix.Fstat(int(l.file.Fd()), &st); err != nil && t.err == nil {
			t.err = err
		}
		l.id = fileID{uint64(st.Dev), st.Ino}
	}
	return l
}

// pump makes the pump of a record, frozen.
func (t *taker) pump(s *Streams, r PumpRecord) *pump {
	var p *pump
	switch {
	case r.Splice != nil:
		c := &splicer{pump: newPump(r.Name, s.options.Log), input: r.Splice.Input}
		c.passer, p = c, c.pump
		if !r.Done {
			c.src, c.dst = t.end(r.Source), t.end(r.Sink)
		}
	case r.Typist != nil:
		c := &typist{pump: newPump(r.Name, s.options.Log), pending: r.Typist.Pending, midline: r.Typist.Midline, ended: r.Typist.Ended}
		c.passer, p = c, c.pump
		if !r.Done {
			c.src, c.master = t.end(r.Source), t.master(s, p)
		}
	case r.Relay != nil:
		p = t.relay(s, r)
	default:
		t.fail("pump %s is of no known kind", r.Name)
		return newPump(r.Name, s.options.Log)
	}
	p.stage.Store(int32(r.Stage))
	p.frozen.Store(true)
	if r.Done {
		close(p.done)
	}
	return p
}

func (t *taker) fail(format string, args ...any) {
	if t.err == nil {
		t.err = fmt.Errorf(format, args...)
	}
}

// master is an end of the terminal for p.
func (t *taker) master(s *Streams, p *pump) *end {
	if s.terminal == nil || s.terminal.file == nil {
		t.fail("there is no terminal")
		return &end{fd: -1}
	}
	p.atEnd = s.terminal.leave
	return s.terminal.join()
}

func (t *taker) relay(s *Streams, r PumpRecord) *pump {
	record := r.Relay
	c := &relay{pump: newPump(r.Name, s.options.Log)}
	c.passer = c
	c.front, c.ended, c.gone, c.midline = record.Front, record.Ended, record.Gone, record.Midline
	c.lost, c.pause, c.retryAt = record.Lost, record.Pause, record.RetryAt
	c.droppedBytes.Store(record.DroppedBytes)
	c.droppedLines.Store(record.DroppedLines)
	c.failures.Store(record.Failures)
	if record.Failure != "" {
		c.failure.Store(&record.Failure)
	}
	if e := record.Encoder; e != nil {
		c.encoder = &encoder{format: format(e.Format), stream: e.Stream, held: e.Held, began: e.Began}
	}
	if r.Done {
		return c.pump
	}
	if record.Kept != nil {
		c.kept = t.ring(*record.Kept)
	}
	var src source
	if record.Terminal {
		src = ttySource{t.master(s, c.pump)}
	} else {
		src = pipeSource{t.end(r.Source)}
	}
	switch {
	case !record.ToFile:
		c.dst = pipeSink{t.end(r.Sink)}
	case s.file == nil:
		t.fail("there is no log file")
	default:
		c.dst = fileSink{s.file.share()}
	}
	if t.err == nil {
		t.err = c.connect(src)
	}
	return c.pump
}

// connect makes what the relay waits with.
func (r *relay) connect(src source) (err error) {
	if r.poller, err = newPoller(); err != nil {
		return err
	}
	if fd := r.dst.descriptor(); fd >= 0 {
		if err := r.poller.add(fd, unix.EPOLLOUT); err != nil {
			return err
		}
	}
	return r.from(src)
}

func (t *taker) ring(r RingRecord) *ring {
	if r.File == "" {
		k := newRing(memory{}, r.Limit)
		k.append(r.Bytes)
		return k
	}
	file := t.file(r.File)
	if file == nil {
		file = os.Stderr // never used: taking it has failed
	}
	return &ring{store: spill{file}, limit: r.Limit, room: r.Room, head: r.Head, size: r.Size, top: r.Top}
}
