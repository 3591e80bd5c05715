package cell

// The network of a cell: a loopback device, and on it a proxy that pretends to
// be every host that images are pulled from.
//
// Programs written in Go go through it because of HTTPS_PROXY and trust it
// because of SSL_CERT_FILE. So they pull over the same code paths as from a
// real registry, by their own names, and no name needs to be known here.

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/image"
)

// certificate is where the proxy's certificate is in the cell.
const certificate = "/run/cell/certificate.pem"

// loopbackUp brings up the only device of a new network namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up the cell's loopback device: %w", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring up the cell's loopback device: %w", err)
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bring up the cell's loopback device: %w", err)
	}
	return nil
}

// servePulls serves images made of busybox under every name and returns the
// environment in which programs find them.
func servePulls(busybox string) ([]string, error) {
	base, err := image.New(busybox)
	if err != nil {
		return nil, err
	}
	registry := image.NewAnyName(func(name string) (v1.Image, error) {
		return image.WithFiles(base, extras(name)...)
	})
	issue, err := newIssuer(certificate)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for pulls: %w", err)
	}
	quiet := log.New(io.Discard, "", 0)
	inner := make(connections)
	config := &tls.Config{GetCertificate: issue}
	go (&http.Server{Handler: registry, ErrorLog: quiet}).Serve(tls.NewListener(inner, config)) // ends with the cell
	go (&http.Server{Handler: tunnel(inner), ErrorLog: quiet}).Serve(listener)                  // ends with the cell
	proxy := "http://" + listener.Addr().String()
	return []string{"HTTPS_PROXY=" + proxy, "HTTP_PROXY=" + proxy, "NO_PROXY=", "SSL_CERT_FILE=" + certificate}, nil
}

// connections is a listener for connections that somebody else has accepted.
type connections chan net.Conn

func (c connections) Accept() (net.Conn, error) { return <-c, nil }
func (c connections) Close() error              { return nil }
func (c connections) Addr() net.Addr            { return &net.TCPAddr{} }

// tunnel answers CONNECT to whatever host by handing the connection to inner.
func tunnel(inner connections) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		hijacker, ok := w.(http.Hijacker)
		if r.Method != http.MethodConnect || !ok {
			http.Error(w, "there is no network here", http.StatusBadGateway)
			return
		}
		conn, buffered, err := hijacker.Hijack()
		if err != nil {
			return
		}
		if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
			conn.Close()
			return
		}
		inner <- bufferedConn{conn, buffered.Reader}
	}
}

// bufferedConn reads first what came with the request before it.
type bufferedConn struct {
	net.Conn
	reader *bufio.Reader
}

func (b bufferedConn) Read(p []byte) (int, error) { return b.reader.Read(p) }
