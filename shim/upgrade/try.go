package upgrade

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/cleatrun/cleat/oci/child"
	"github.com/cleatrun/cleat/oci/handover"
	"github.com/cleatrun/cleat/shim/version"
	"github.com/containerd/errdefs"
)

// TryFlag is the flag by which a program is asked whether it can take over. It
// then finds a state on its descriptor 3, and what that names on those after it,
// restores all, starts nothing, and writes one line of JSON: a Trial.
const TryFlag = "upgrade-try"

const (
	// tryLimit bounds how long a program may take to tell.
	tryLimit = 5 * time.Second
	// tryStateFD is the state's descriptor there.
	tryStateFD = 3
	// maxTrial bounds what is taken of what it says.
	maxTrial = 64 << 10
)

// Trial is what a program says when it is tried.
type Trial struct {
	// Program is always "cleat".
	Program           string
	Release, Revision string
	Versions          Versions
	// Refused is why it cannot take over, empty if it can.
	Refused string `json:",omitempty"`
}

const programName = "cleat"

// Try runs the program as a child that is handed a copy of everything, and
// returns what it says. It is an error if it cannot take over; Refused is then
// set only if it says so itself. files are duplicates, and closed.
func (p *Program) Try(ctx context.Context, state State, files *handover.Files) (Trial, error) {
	refuse := func(format string, args ...any) (Trial, error) {
		return Trial{}, fmt.Errorf("%s "+format+": %w", append(append([]any{p.Path}, args...), errdefs.ErrFailedPrecondition)...)
	}
	h := handed{State: state, Files: map[string]int{}}
	extra := []*os.File{nil}
	for name, fd := range files.Numbers {
		h.Files[name] = tryStateFD + len(extra)
		extra = append(extra, os.NewFile(uintptr(fd), name))
	}
	files.Numbers = nil // they are extra's now
	defer func() {
		for _, f := range extra {
			f.Close()
		}
	}()
	var err error
	if extra[0], err = seal(&h); err != nil {
		return Trial{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	var said, complaint limited
	cmd := exec.CommandContext(ctx, "/proc/"+strconv.Itoa(os.Getpid())+"/fd/"+strconv.Itoa(int(p.file.Fd())), "-"+TryFlag)
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &said, &complaint, extra
	command, err := child.Start(cmd)
	if err != nil {
		return refuse("cannot be run: %v", reason(err))
	}
	ended, err := command.Wait(context.Background()) // ctx ends it
	if err != nil {
		return Trial{}, err
	}
	words := strings.TrimSpace(complaint.String())
	words = words[:min(len(words), 500)]
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return refuse("does not tell within %s whether it can take over", tryLimit)
	case ctx.Err() != nil:
		return Trial{}, ctx.Err()
	}
	var trial Trial
	if err := json.Unmarshal(said.Bytes(), &trial); err != nil || trial.Program != programName {
		if !ended.Success() && words != "" {
			return refuse("is no cleat, or a broken one (%s): %s", ended, words)
		}
		return refuse("is no cleat, or a broken one (%s)", ended)
	}
	if trial.Refused != "" {
		_, err := refuse("cannot take over: %s", trial.Refused)
		return trial, err
	}
	if !ended.Success() {
		return refuse("cannot take over (%s): %s", ended, words)
	}
	// It has read the state already; this is what it says of itself.
	if err := trial.Versions.Readable(state.Versions); err != nil {
		return refuse("cannot take over: %v", err)
	}
	return trial, nil
}

// reason is the innermost error: the path in the outer ones is no help.
func reason(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// Rehearse is the other side of Try: it restores what was handed over and says
// so on out. restore must start nothing.
func Rehearse(out io.Writer, restore func(*Received) error) error {
	trial := Trial{Program: programName, Versions: Ours()}
	trial.Release, trial.Revision = version.Get()
	received, err := receive(tryStateFD)
	if err == nil {
		err = restore(received)
	}
	if err != nil {
		trial.Refused = err.Error()
	}
	return json.NewEncoder(out).Encode(trial)
}

// limited takes the first maxTrial bytes.
type limited struct{ bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	l.Buffer.Write(b[:min(len(b), maxTrial-l.Len())])
	return len(b), nil
}
