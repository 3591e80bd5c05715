package stdio

// maxSaid bounds what Said returns; it is the end of what there is.
const maxSaid = 4 << 10

// Said takes what was written to stderr by a launch that has failed: that is the
// OCI runtime's, for the process never ran. It is empty where nothing stands
// between the process and the client or its logger.
func (s *Streams) Said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attached || s.closed {
		return ""
	}
	for _, p := range s.outputs {
		if p.name != "stderr" {
			continue
		}
		switch p := p.passer.(type) {
		case *splicer:
			return rest(p.src.fd, maxSaid)
		case *relay:
			return rest(p.src.descriptor().fd, maxSaid)
		}
	}
	return ""
}

// rest takes what is in a pipe, and returns the end of it.
func rest(fd, limit int) string {
	var said []byte
	buf := make([]byte, 4<<10)
	for {
		n, err := read(fd, buf)
		if err != nil || n <= 0 {
			return string(said)
		}
		said = append(said, buf[:n]...)
		said = said[max(0, len(said)-limit):]
	}
}
