package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// File is one file of an image. Root owns it.
type File struct {
	Name    string      // without a leading slash
	Mode    fs.FileMode // a regular file, a directory or a symbolic link, with its permissions
	Content []byte      // of a link: where it points
}

// WithFiles is img with one more layer that holds files.
func WithFiles(img v1.Image, files ...File) (v1.Image, error) {
	archive, err := layer(files)
	if err != nil {
		return nil, err
	}
	return appendLayer(img, archive)
}

func appendLayer(img v1.Image, archive []byte) (v1.Image, error) {
	img, err := mutate.AppendLayers(img, static.NewLayer(archive, types.OCIUncompressedLayer))
	if err != nil {
		return nil, fmt.Errorf("add a layer to the image: %w", err)
	}
	return img, nil
}

// layer is files as a tar archive.
func layer(files []File) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		h := tar.Header{Name: f.Name, Mode: permissions(f.Mode), ModTime: made, Format: tar.FormatPAX}
		content := f.Content
		switch f.Mode.Type() {
		case fs.ModeDir:
			h.Typeflag, h.Name = tar.TypeDir, f.Name+"/"
		case fs.ModeSymlink:
			h.Typeflag, h.Linkname, content = tar.TypeSymlink, string(f.Content), nil
		default:
			h.Typeflag = tar.TypeReg
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			return nil, fmt.Errorf("write %s to an image layer: %w", f.Name, err)
		}
		if _, err := w.Write(content); err != nil {
			return nil, fmt.Errorf("write %s to an image layer: %w", f.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write an image layer: %w", err)
	}
	return out.Bytes(), nil
}

// permissions is a mode as tar has it.
func permissions(mode fs.FileMode) int64 {
	bits := int64(mode.Perm())
	for flag, bit := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&flag != 0 {
			bits |= bit
		}
	}
	return bits
}
