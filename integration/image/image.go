// Package image makes the one image that tests and demo run, and brings it to
// containerd in the two ways a user would: from a file and from a registry.
//
// Nothing is downloaded. The image holds a static busybox, its applets as
// links, and the two users root and nobody.
package image

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Name is what the image is called when it is imported from a file.
const Name = "cleat.test/busybox:latest"

// made is the time of everything in the image, so that the same busybox gives
// the same digests.
var made = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// New makes the image from the statically linked busybox at path.
func New(busybox string) (v1.Image, error) {
	layer, err := rootfs(busybox)
	if err != nil {
		return nil, err
	}
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	img, err = appendLayer(img, layer)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the image's configuration: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Created = v1.Time{Time: made}
	config.Config.Env = []string{"PATH=/bin"}
	config.Config.Cmd = []string{"sh"}
	return mutate.ConfigFile(img, config)
}

// rootfs is the image's only layer, as a tar archive.
func rootfs(busybox string) ([]byte, error) {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, fmt.Errorf("read busybox: %w", err)
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("ask %s for its applets: %w", busybox, err)
	}

	var files []File
	for _, dir := range []string{"bin", "dev", "etc", "proc", "root", "run", "sys"} {
		files = append(files, File{Name: dir, Mode: fs.ModeDir | 0o755})
	}
	files = append(files,
		File{Name: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		File{Name: "bin/busybox", Mode: 0o755, Content: program})
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			files = append(files, File{Name: "bin/" + applet, Mode: fs.ModeSymlink | 0o777, Content: []byte("busybox")})
		}
	}
	files = append(files,
		File{Name: "etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n")},
		File{Name: "etc/group", Mode: 0o644, Content: []byte("root:x:0:\nnobody:x:65534:\n")})
	return layer(files)
}

// WriteFile writes img to path as an OCI image layout in a tar archive, which
// `ctr images import` takes. The image will be called name.
func WriteFile(img v1.Image, name, path string) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), "layout-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	index, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write the image layout: %w", err)
	}
	err = index.AppendImage(img, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name":          name,
		"org.opencontainers.image.ref.name": name[strings.LastIndex(name, ":")+1:],
	}))
	if err != nil {
		return fmt.Errorf("write the image layout: %w", err)
	}
	return archive(dir, path)
}

// archive puts all files below dir into a tar archive at path.
func archive(dir, path string) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	err = filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: info.Size(), ModTime: made}); err != nil {
			return err
		}
		in, err := os.Open(file)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.Copy(w, in)
		return err
	})
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
