package image

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func TestARegistryOfAnyNameHasADifferentImageForEach(t *testing.T) {
	var made []string
	server := httptest.NewServer(NewAnyName(func(name string) (v1.Image, error) {
		made = append(made, name)
		return WithFiles(empty.Image, File{Name: "name", Mode: 0o644, Content: []byte(name)})
	}))
	defer server.Close()
	pull := func(ref string) (v1.Image, error) {
		r, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/" + ref)
		if err != nil {
			t.Fatal(err)
		}
		return remote.Image(r)
	}

	digests := map[string]bool{}
	for _, ref := range []string{"app", "team/app:1", "team/app:2", "a/b/c:latest", "app"} {
		img, err := pull(ref)
		if err != nil {
			t.Fatalf("pull %s: %v", ref, err)
		}
		if err := readAll(img); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
		digest, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests[digest.String()] = true
		if again, err := pull("app@" + digest.String()); err != nil {
			t.Errorf("pull %s by its digest: %v", ref, err)
		} else if err := readAll(again); err != nil {
			t.Errorf("%s by its digest: %v", ref, err)
		}
	}
	if len(digests) != 3 || len(made) != 4 {
		t.Errorf("%d different images, not 3; made for %q", len(digests), made)
	}
	if _, err := pull("app@sha256:" + strings.Repeat("0", 64)); err == nil {
		t.Error("a digest of nothing was found")
	}
}

// readAll reads all parts of an image; the client compares them with their
// digests.
func readAll(img v1.Image) error {
	if _, err := img.ConfigFile(); err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		r, err := layer.Compressed()
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
	}
	return nil
}
