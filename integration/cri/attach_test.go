package cri

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// kubectl attach -i: what the container writes comes to the client and into the
// log; the end of the input reaches the container.
func TestAttach(t *testing.T) {
	t.Parallel()
	p := runPod(t, sharedDaemon(t), typed, "attach")
	c := p.run("main", []string{"sh", "-c", "while read x; do echo got $x; echo no $x >&2; done; echo end; exit 6"},
		func(c *cri.ContainerConfig) { c.Stdin, c.StdinOnce = true, true })
	var stdout, stderr bytes.Buffer
	err := p.attach(c, remotecommand.StreamOptions{
		Stdin: strings.NewReader("one\ntwo\n"), Stdout: &stdout, Stderr: &stderr,
	})
	if err != nil {
		t.Errorf("attach: %v", err)
	}
	if got := stdout.String(); got != "got one\ngot two\nend\n" {
		t.Errorf("stdout is %q", got)
	}
	if got := stderr.String(); got != "no one\nno two\n" {
		t.Errorf("stderr is %q", got)
	}
	if status := c.exited(); status.ExitCode != 6 {
		t.Errorf("the container ended with %d, want 6", status.ExitCode)
	}
	c.wrote("end")
	p.end()
}

// kubectl attach -it, twice: who leaves does not end the container.
func TestAttachToATerminal(t *testing.T) {
	t.Parallel()
	p := runPod(t, sharedDaemon(t), typed, "attach-tty")
	c := p.run("main", resizing, func(c *cri.ContainerConfig) { c.Stdin, c.Tty = true, true })
	first := newScreen()
	close(first.sizes)
	if err := p.attach(c, remotecommand.StreamOptions{
		Stdin: strings.NewReader("hello\n"), Stdout: first, Tty: true, TerminalSizeQueue: first,
	}); err != nil {
		t.Errorf("attach: %v", err)
	}
	k, s := make(keyboard, 1), newScreen()
	ended := make(chan error, 1)
	go func() { // ends with the container
		ended <- p.attach(c, remotecommand.StreamOptions{Stdin: k, Stdout: s, Tty: true, TerminalSizeQueue: s})
	}()
	resized(t, k, s)
	if err := <-ended; err != nil {
		t.Errorf("attach: %v", err)
	}
	if status := c.exited(); status.ExitCode != 4 {
		t.Errorf("the container ended with %d, want 4", status.ExitCode)
	}
	p.end()
}

// kubectl port-forward, to a pod in the host's network and to one that has its
// own, which other pods reach by its address.
func TestPortForward(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]podOption{"host": nil, "own": {own}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := runPod(t, sharedDaemon(t), typed, "forward-"+name, options...)
			const port = 8088
			server := p.run("server", []string{"nc", "-ll", "-p", fmt.Sprint(port), "-e", "cat"})
			local := p.forward(port)
			text := strings.Repeat("echo ", 50000)
			// It may need a moment until it listens.
			eventually(t, func() error {
				to, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", local))
				if err != nil {
					return err
				}
				defer to.Close()
				go func() { // ends with the connection
					io.WriteString(to, text)
					to.(*net.TCPConn).CloseWrite()
				}()
				back, err := io.ReadAll(to)
				if err == nil && string(back) != text {
					err = fmt.Errorf("of %d bytes came back %d", len(text), len(back))
				}
				return err
			})
			if name == "own" {
				status, _ := p.status()
				address := status.GetNetwork().GetIp()
				other := runPod(t, p.d, typed, "forward-other", own)
				client := other.run("client", forever)
				got := client.output("sh", "-c", fmt.Sprintf("echo hello | nc -w 20 %s %d", address, port))
				if got != "hello\n" {
					t.Errorf("%s answers another pod %q", address, got)
				}
				other.end()
			}
			server.stop(0)
			p.end()
		})
	}
}
