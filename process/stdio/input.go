package stdio

// This file is the client's input.

// OpenStdin opens the client's FIFO and lets its bytes flow to the process. It
// is called when the process is about to run, after Attach.
//
// Not before: a client whose input is short is told by the opened FIFO that it
// can write all of it, and reacts to its end (by CloseIO) only once it knows
// the process that it made, which ctr forgets to do when that comes first.
func (s *Streams) OpenStdin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin == nil || s.closed || s.gone {
		return nil
	}
	defer s.closeStdin()
	reader, err := s.stdin.reader(false)
	if err != nil {
		return err
	}
	// Held for a moment at least: poll(2) tells no end of a FIFO that nobody
	// has written to since it was opened.
	if s.holdStdin, err = s.stdin.writer(true); err != nil {
		reader.Close()
		return err
	}
	if s.state.StdinClosed {
		closeFile(&s.holdStdin)
	}
	if s.terminal != nil {
		s.input = newTypist("stdin", endOf(reader), s.terminal.join(), s.options.Log).pump
		s.input.atEnd = s.terminal.leave
	} else {
		in := newSplicer("stdin", endOf(reader), s.feed, s.options.Log)
		in.input = true
		s.input = in.pump
		s.feed = nil
	}
	s.input.start()
	return nil
}

// closeStdin gives up what OpenStdin has not used.
func (s *Streams) closeStdin() {
	if s.stdin != nil {
		s.stdin.close()
		s.stdin = nil
	}
	if s.feed != nil {
		s.feed.close()
		s.feed = nil
	}
}

// CloseStdin gives up the shim's hold on the input: it ends when the client
// has closed its side, too.
func (s *Streams) CloseStdin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.StdinClosed = true
	closeFile(&s.holdStdin)
	return nil
}
