package image

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// AnyName is a registry that has an image for every name: it is made, from the
// name, when it is asked for by a tag. So a program that pulls images under
// names of its own can do so without a network. Nothing can be pushed.
//
// It is an http.Handler. All hosts that it is reached by are one registry.
type AnyName struct {
	image func(name string) (v1.Image, error)

	mu     sync.Mutex
	tagged map[string]string // digests of manifests, by the path after /v2/
	blobs  map[string]blob   // manifests, configurations and layers, by digest
}

// blob is what a digest stands for.
type blob struct {
	mediaType string
	content   []byte
}

// NewAnyName makes such a registry. image is given a name without host and tag
// ("team/app"); it is not called concurrently.
func NewAnyName(image func(name string) (v1.Image, error)) *AnyName {
	return &AnyName{image: image, tagged: map[string]string{}, blobs: map[string]blob{}}
}

// ServeHTTP answers the pull half of the OCI distribution specification.
func (a *AnyName) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "this registry can only be pulled from", http.StatusNotFound)
		return
	}
	if path == "" {
		return // 200: this is a registry
	}
	digest, found, err := a.find(path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", found.mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(found.content)))
	w.Header().Set("Docker-Content-Digest", digest)
	if r.Method == http.MethodGet {
		w.Write(found.content)
	}
}

// find gives what a path after /v2/ stands for:
// NAME/manifests/TAG, NAME/manifests/DIGEST or NAME/blobs/DIGEST.
func (a *AnyName) find(path string) (digest string, found blob, err error) {
	elems := strings.Split(path, "/")
	if len(elems) < 3 {
		return "", blob{}, fmt.Errorf("%s: not a path of a registry", path)
	}
	last := len(elems) - 1
	name, kind, ref := strings.Join(elems[:last-1], "/"), elems[last-1], elems[last]
	isDigest := strings.Contains(ref, ":")

	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case (kind == "manifests" || kind == "blobs") && isDigest:
		digest = ref
	case kind == "manifests":
		if digest = a.tagged[path]; digest == "" {
			if digest, err = a.add(name); err != nil {
				return "", blob{}, fmt.Errorf("make an image for %s: %w", name, err)
			}
			a.tagged[path] = digest
		}
	default:
		return "", blob{}, fmt.Errorf("%s: not a path of a registry", path)
	}
	found, ok := a.blobs[digest]
	if !ok {
		return "", blob{}, fmt.Errorf("%s: no such content", path)
	}
	return digest, found, nil
}

// add makes the image for a name and keeps its parts. It returns the digest of
// the manifest.
func (a *AnyName) add(name string) (string, error) {
	img, err := a.image(name)
	if err != nil {
		return "", err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return "", err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return "", err
	}
	a.blobs[manifest.Config.Digest.String()] = blob{string(manifest.Config.MediaType), config}

	layers, err := img.Layers()
	if err != nil {
		return "", err
	}
	for i, layer := range layers {
		reader, err := layer.Compressed()
		if err != nil {
			return "", err
		}
		content, err := io.ReadAll(reader)
		reader.Close()
		if err != nil {
			return "", err
		}
		a.blobs[manifest.Layers[i].Digest.String()] = blob{string(manifest.Layers[i].MediaType), content}
	}

	raw, err := img.RawManifest()
	if err != nil {
		return "", err
	}
	digest, err := img.Digest()
	if err != nil {
		return "", err
	}
	a.blobs[digest.String()] = blob{string(manifest.MediaType), raw}
	return digest.String(), nil
}
