package cri

// The client's side of containerd's streaming server, as kubectl has it.

import (
	"fmt"
	"io"
	"net/http"
	"net/url"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// streamExec runs a command in a container with streams and returns when it has
// ended. An exit status other than 0 is an error (k8s.io/client-go/util/exec).
func (p *pod) streamExec(c *container, streams remotecommand.StreamOptions, args ...string) error {
	answer, err := p.runtime().Exec(p.ctx, &cri.ExecRequest{
		ContainerId: c.id, Cmd: args, Tty: streams.Tty,
		Stdin: streams.Stdin != nil, Stdout: streams.Stdout != nil, Stderr: streams.Stderr != nil,
	})
	if err != nil {
		return err
	}
	return p.stream(answer.Url, streams)
}

// attach attaches streams to a container. It returns when the container has
// ended, or the input, unless the container takes that only once.
func (p *pod) attach(c *container, streams remotecommand.StreamOptions) error {
	answer, err := p.runtime().Attach(p.ctx, &cri.AttachRequest{
		ContainerId: c.id, Tty: streams.Tty,
		Stdin: streams.Stdin != nil, Stdout: streams.Stdout != nil, Stderr: streams.Stderr != nil,
	})
	if err != nil {
		return err
	}
	return p.stream(answer.Url, streams)
}

// stream streams by SPDY, as a kubelet does.
func (p *pod) stream(address string, streams remotecommand.StreamOptions) error {
	to, err := url.Parse(address)
	if err != nil {
		return err
	}
	executor, err := remotecommand.NewSPDYExecutor(&rest.Config{}, http.MethodPost, to)
	if err != nil {
		return err
	}
	return executor.StreamWithContext(p.ctx, streams)
}

// forward forwards a free port of loopback to one of the pod until the test
// ends, and returns it.
func (p *pod) forward(to int) (port uint16) {
	p.t.Helper()
	answer, err := p.runtime().PortForward(p.ctx, &cri.PortForwardRequest{PodSandboxId: p.id, Port: []int32{int32(to)}})
	if err != nil {
		p.t.Fatalf("forward a port: %v", err)
	}
	address, err := url.Parse(answer.Url)
	if err != nil {
		p.t.Fatal(err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
	if err != nil {
		p.t.Fatal(err)
	}
	dialer := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, address)
	ready, stop := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.NewForStreaming(dialer, []string{fmt.Sprintf("0:%d", to)}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }() // ends with the test
	p.t.Cleanup(func() {
		close(stop)
		<-ended
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		p.t.Fatalf("forward a port: %v", err)
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		p.t.Fatal(err)
	}
	return ports[0].Local
}
