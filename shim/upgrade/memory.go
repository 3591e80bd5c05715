package upgrade

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// handed is what is in the sealed memory that one program leaves to the next.
type handed struct {
	State State
	// Files are the numbers of the descriptors that the state names.
	Files map[string]int
	Times Times
}

// maxState bounds what is read of a state.
const maxState = 256 << 20

// seal writes it into memory that nobody can change.
func seal(h *handed) (*os.File, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("write the state: %w", err)
	}
	fd, err := unix.MemfdCreate("cleat-state", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make memory for the state: %w", err)
	}
	file := os.NewFile(uintptr(fd), "state")
	if _, err := file.Write(text); err != nil {
		file.Close()
		return nil, fmt.Errorf("write the state: %w", err)
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		file.Close()
		return nil, fmt.Errorf("seal the state: %w", err)
	}
	return file, nil
}

// unseal reads what a descriptor of it holds, and leaves it open.
func unseal(fd int) (*handed, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("read the state: %w", err)
	}
	if st.Size > maxState {
		return nil, fmt.Errorf("read the state: it has %d bytes", st.Size)
	}
	text := make([]byte, st.Size)
	for done := 0; done < len(text); {
		n, err := unix.Pread(fd, text[done:], int64(done))
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && err != unix.EINTR {
			return nil, fmt.Errorf("read the state: %w", err)
		}
		done += max(n, 0)
	}
	// The version first: what a state of another one holds is not known.
	var versions struct{ State Versions }
	if err := json.Unmarshal(text, &versions); err != nil {
		return nil, fmt.Errorf("read the state: %w", err)
	}
	if err := Ours().Readable(versions.State); err != nil {
		return nil, err
	}
	h := new(handed)
	if err := json.Unmarshal(text, h); err != nil {
		return nil, fmt.Errorf("read the state: %w", err)
	}
	return h, nil
}
