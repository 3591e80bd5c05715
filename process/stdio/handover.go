package stdio

// This file takes streams to another program of the same process: what they
// are as plain data and files, and how they are made of that. What each pump
// knows is in record.go, what a logger does in loggerrecord.go.

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/cleatrun/cleat/oci/handover"
	"golang.org/x/sys/unix"
)

// Record is all that there is to know of streams that are held up. Files are
// named in it.
type Record struct {
	State   State
	Options Options
	// Attached, Gone and Closed tell how far the streams have come.
	Attached bool `json:",omitempty"`
	Gone     bool `json:",omitempty"`
	Closed   bool `json:",omitempty"`
	// HoldStdin and Holds are what keeps the client's FIFOs open.
	HoldStdin string   `json:",omitempty"`
	Holds     []string `json:",omitempty"`
	// Stdin is the client's FIFO at StdinPath, Feed where it will lead to, until
	// the process is started.
	Stdin     string `json:",omitempty"`
	StdinPath string `json:",omitempty"`
	Feed      string `json:",omitempty"`
	// Terminal is the master.
	Terminal string         `json:",omitempty"`
	File     *FileRecord    `json:",omitempty"`
	Input    *PumpRecord    `json:",omitempty"`
	Outputs  []PumpRecord   `json:",omitempty"`
	Loggers  []LoggerRecord `json:",omitempty"`
}

// FileRecord is a log file of the streams.
type FileRecord struct {
	Stream, Path string
	Size         int64 `json:",omitempty"`
	Files        int   `json:",omitempty"`
	// File is the descriptor's name; there is none while it cannot be opened.
	File      string `json:",omitempty"`
	Midline   bool   `json:",omitempty"`
	Rotations int64  `json:",omitempty"`
}

// Hold stops all that passes bytes on, between two of them, and all that loggers
// are waited for. GoOn undoes it, also when it has failed.
func (s *Streams) Hold(ctx context.Context) error {
	s.mu.Lock()
	if s.isHeld() {
		s.mu.Unlock()
		return nil
	}
	close(s.held)
	pumps, loggers := s.pumps(), s.loggers
	attached := s.attached
	s.mu.Unlock()
	if attached {
		for _, p := range pumps {
			if !p.ended() {
				p.freeze()
			}
		}
	}
	for _, l := range loggers {
		if err := l.hold(ctx); err != nil {
			return err
		}
	}
	s.ends.Wait()
	return nil
}

// isHeld tells whether they are held up; the caller holds s.mu.
func (s *Streams) isHeld() bool {
	select {
	case <-s.held:
		return true
	default:
		return false
	}
}

// pumps are those that pass bytes on, or did; the caller holds s.mu.
func (s *Streams) pumps() []*pump {
	all := append([]*pump(nil), s.outputs...)
	if s.input != nil {
		all = append(all, s.input)
	}
	return all
}

// GoOn undoes Hold, and begins what restored streams do.
func (s *Streams) GoOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isHeld() {
		return
	}
	s.held = make(chan struct{})
	if s.attached {
		for _, p := range s.pumps() {
			if !p.ended() {
				p.start()
			}
		}
	}
	for _, l := range s.loggers {
		l.goOn()
	}
	if s.closed {
		s.beginFinish()
	}
}

// Handover is what another program needs to go on with the streams of a process,
// which are held up. The names of their files begin with name. What closed streams
// have not passed on is not in it, but in HandoverLingering.
func (s *Streams) Handover(name string, files *handover.Files) Record {
	state := s.State()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Record{State: state, Options: s.options, Attached: s.attached, Gone: s.gone, Closed: true}
	}
	return s.record(state, name, files)
}

// record is all that there is to know; the caller holds s.mu.
func (s *Streams) record(state State, name string, files *handover.Files) Record {
	r := Record{State: state, Options: s.options, Attached: s.attached, Gone: s.gone, Closed: s.closed}
	if s.holdStdin != nil {
		r.HoldStdin = files.Add(name+"/hold-stdin", s.holdStdin)
	}
	for i, hold := range s.holds {
		if hold != nil {
			r.Holds = append(r.Holds, files.Add(fmt.Sprintf("%s/hold-%d", name, i), hold))
		}
	}
	if s.stdin != nil {
		r.Stdin, r.StdinPath = files.AddNumber(name+"/stdin-fifo", s.stdin.fd), s.stdin.path
	}
	if s.feed != nil {
		r.Feed = files.Add(name+"/feed", s.feed.file)
	}
	if s.terminal != nil {
		r.Terminal = files.Add(name+"/terminal", s.terminal.file)
	}
	if s.file != nil {
		r.File = s.file.record(name, files)
	}
	if s.input != nil {
		input := s.input.record(name+"/stdin", files)
		r.Input = &input
	}
	for i, p := range s.outputs {
		r.Outputs = append(r.Outputs, p.record(fmt.Sprintf("%s/output-%d", name, i), files))
	}
	for i, l := range s.loggers {
		r.Loggers = append(r.Loggers, l.record(fmt.Sprintf("%s/logger-%d", name, i), files))
	}
	return r
}

// Restore makes the streams that another program has handed over. They are held
// up.
func Restore(log func(string, ...any), r Record, files *handover.Inherited) (*Streams, error) {
	s := &Streams{options: r.Options, state: r.State, attached: r.Attached, gone: r.Gone, closed: r.Closed, held: make(chan struct{})}
	close(s.held)
	s.options.Log = log
	s.state.Outputs, s.state.Loggers = nil, nil
	take := taker{files: files}
	s.holdStdin = take.file(r.HoldStdin)
	for _, hold := range r.Holds {
		s.holds = append(s.holds, take.file(hold))
	}
	if r.Stdin != "" {
		s.stdin = &node{fd: take.number(r.Stdin), path: r.StdinPath}
		if take.err == nil {
			take.err = unix.Fstat(s.stdin.fd, &s.stdin.stat)
		}
	}
	if r.Feed != "" {
		s.feed = take.end(r.Feed)
	}
	if r.Terminal != "" {
		s.terminal = &terminal{file: take.file(r.Terminal)}
	}
	if r.File != nil {
		s.file = take.logFile(*r.File)
	}
	for _, output := range r.Outputs {
		s.outputs = append(s.outputs, take.pump(s, output))
	}
	if r.Input != nil {
		s.input = take.pump(s, *r.Input)
	}
	for _, l := range r.Loggers {
		s.loggers = append(s.loggers, take.logger(s, l))
	}
	if take.err != nil {
		return nil, fmt.Errorf("restore standard IO: %w", take.err)
	}
	return s, nil
}

// RestoreLingering is Restore for streams that no process has any more.
func RestoreLingering(log func(string, ...any), r Record, files *handover.Inherited) error {
	s, err := Restore(log, r, files)
	if err == nil {
		lingering.add(s)
	}
	return err
}

// taker takes files until the first that cannot be had.
type taker struct {
	files *handover.Inherited
	err   error
}

// file of that name; nil for the empty one.
func (t *taker) file(name string) *os.File {
	if name == "" || t.err != nil {
		return nil
	}
	var f *os.File
	f, t.err = t.files.Take(name)
	return f
}

func (t *taker) number(name string) (fd int) {
	if t.err == nil {
		fd, t.err = t.files.TakeNumber(name)
	}
	return fd
}

// end is one of a pump.
func (t *taker) end(name string) *end {
	f := t.file(name)
	if f == nil {
		if t.err == nil {
			t.err = fmt.Errorf("a stream has no file")
		}
		return &end{fd: -1}
	}
	return endOf(f)
}

// Lingering are the streams that are closed and not at their end. They belong to
// no process any more.
func Lingering() []*Streams {
	lingering.mu.Lock()
	defer lingering.mu.Unlock()
	return slices.Collect(maps.Keys(lingering.streams))
}

// HandoverLingering is Handover for those.
func HandoverLingering(files *handover.Files) (records []Record) {
	for i, s := range Lingering() {
		state := s.State()
		s.mu.Lock()
		records = append(records, s.record(state, fmt.Sprintf("lingering/%d", i), files))
		s.mu.Unlock()
	}
	return records
}
