// Package client asks the control service of a shim. It is not part of the daemon:
// ttrpc's client costs memory for as long as a process lives.
package client

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/cleatrun/cleat/shim/control"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Client asks the control service of one shim.
type Client struct{ client *ttrpc.Client }

// Dial connects to the shim at an address as containerd has it in a bundle
// (bootstrap.json, address), with or without "unix://".
func Dial(ctx context.Context, address string) (*Client, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", strings.TrimPrefix(address, "unix://"))
	if err != nil {
		return nil, fmt.Errorf("connect to the shim: %w", err)
	}
	return &Client{client: ttrpc.NewClient(conn)}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.client.Close() }

// Info asks who the shim is.
func (c *Client) Info(ctx context.Context) (control.Info, error) {
	var info control.Info
	return info, c.call(ctx, control.MethodInfo, nil, &info)
}

// Inspect asks for all that the shim knows.
func (c *Client) Inspect(ctx context.Context) (control.Inspection, error) {
	var inspection control.Inspection
	return inspection, c.call(ctx, control.MethodInspect, nil, &inspection)
}

// Dump asks what the shim's goroutines are doing and what was done last.
func (c *Client) Dump(ctx context.Context) (control.Dump, error) {
	var dump control.Dump
	return dump, c.call(ctx, control.MethodDump, nil, &dump)
}

// Upgrade replaces the program of the shim.
func (c *Client) Upgrade(ctx context.Context, u control.Upgrade) (control.Upgraded, error) {
	var upgraded control.Upgraded
	return upgraded, c.call(ctx, control.MethodUpgrade, u, &upgraded)
}

// Try has the shim find out whether its program could be replaced.
func (c *Client) Try(ctx context.Context, u control.Upgrade) (control.Tried, error) {
	var tried control.Tried
	return tried, c.call(ctx, control.MethodTry, u, &tried)
}

// call asks a method. Errors are ttrpc's, with gRPC status codes; a shim of
// another make answers Unimplemented.
func (c *Client) call(ctx context.Context, method string, request, response any) error {
	message, err := control.Encode(request)
	if err != nil {
		return err
	}
	// ttrpc's client takes generated messages only. To one without fields the
	// bytes of any message are unknown fields, which it keeps.
	in, out := rawMessage(message), rawMessage(nil)
	if err := c.client.Call(ctx, control.Service, method, in, out); err != nil {
		return err
	}
	return control.Decode(out.ProtoReflect().GetUnknown(), response)
}

func rawMessage(b []byte) *emptypb.Empty {
	m := new(emptypb.Empty)
	m.ProtoReflect().SetUnknown(b)
	return m
}
