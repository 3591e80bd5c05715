package vm

import (
	"context"
	"fmt"
	"os/exec"
)

// collect runs a machine whose job is a test binary. It calls ended for each
// test on the top level as soon as that is over, and returns all results and
// the binary's exit status.
func collect(ctx context.Context, m *machine, ended func(*result)) (r results, status int, err error) {
	// -t because only then the events say how long a test took.
	// Not bound to ctx: it ends with its input, and then has told everything.
	convert := exec.Command("go", "tool", "test2json", "-t")
	in, err := convert.StdinPipe()
	if err != nil {
		return r, 0, err
	}
	out, err := convert.StdoutPipe()
	if err != nil {
		return r, 0, err
	}
	if err := convert.Start(); err != nil {
		return r, 0, fmt.Errorf("start go tool test2json: %w", err)
	}
	m.output = in
	done := make(chan struct{})
	go func() { // ends with the machine
		defer close(done)
		defer in.Close()
		status, err = m.run(ctx)
	}()
	unread := r.read(out, ended)
	<-done
	unfinished := convert.Wait()
	for _, other := range []error{unread, unfinished} {
		if err == nil && other != nil {
			err = fmt.Errorf("go tool test2json: %w", other)
		}
	}
	return r, status, err
}
