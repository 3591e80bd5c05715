package image

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Registry is an image registry on loopback that speaks plain HTTP and lives
// as long as this process, or until Close.
type Registry struct {
	server *http.Server
	host   string
}

// ServeRegistry starts a registry on a free port of 127.0.0.1.
func ServeRegistry() (*Registry, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the registry: %w", err)
	}
	quiet := log.New(io.Discard, "", 0)
	r := &Registry{
		host: listener.Addr().String(),
		server: &http.Server{
			Handler:           registry.New(registry.Logger(quiet)),
			ErrorLog:          quiet,
			ReadHeaderTimeout: 10 * time.Second,
		},
	}
	go r.server.Serve(listener) // ends by Close
	return r, nil
}

// Add puts img into the registry under path ("team/app:tag") and returns the
// full reference to pull it by.
func (r *Registry) Add(img v1.Image, path string) (string, error) {
	ref, err := name.ParseReference(r.host+"/"+path, name.Insecure)
	if err != nil {
		return "", fmt.Errorf("name an image %q: %w", path, err)
	}
	if err := remote.Write(ref, img); err != nil {
		return "", fmt.Errorf("push %s: %w", ref, err)
	}
	return ref.Name(), nil
}

// Close ends the registry at once.
func (r *Registry) Close() error { return r.server.Close() }
