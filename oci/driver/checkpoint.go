package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cleatrun/cleat/oci"
	"github.com/containerd/go-runc"
)

// This file writes containers to images and makes them anew from images, by
// way of the runtime and of CRIU, which it runs.

// Names under which CRIU's log is kept in the bundle when it has failed.
const (
	dumpLog    = "criu-dump.log"
	restoreLog = "criu-restore.log"
)

// maxKeptLog bounds what is kept of CRIU's log, from its end: it may be tens
// of megabytes, and bundles are in memory on most hosts.
const maxKeptLog = 1 << 20

// CanCheckpoint tells whether containers can be written to images here, that
// is, whether runtimes find CRIU. Then a process must have nothing open that
// CRIU cannot write; a FIFO that is not in the container's own mounts is such a
// thing ("Can't lookup mount"), a pipe is none.
var CanCheckpoint = sync.OnceValue(func() bool {
	_, err := exec.LookPath("criu")
	return err == nil
})

// CheckpointOptions say how a container is written to an image.
type CheckpointOptions struct {
	// ImagePath is the folder that the image is written to; empty means the
	// one of the container's options.
	ImagePath string
	// WorkPath is the folder for CRIU's own files and logs, which stay there;
	// empty means one that is removed afterwards.
	WorkPath string
	// ParentPath is an earlier image that this one builds upon, relative to
	// ImagePath.
	ParentPath string
	// Exit ends the container once its image is written. The runtime then
	// forgets it.
	Exit bool
	// What the container may hold that could not be written otherwise.
	OpenTCP             bool
	ExternalUnixSockets bool
	Terminal            bool
	FileLocks           bool
	// EmptyNamespaces are created on restore without their properties.
	EmptyNamespaces []string
	// CgroupsMode is CRIU's way to deal with cgroups: soft, full, strict or
	// ignore; empty means the runtime's default.
	CgroupsMode string
}

// RestoreOptions say what a container is made from.
type RestoreOptions struct {
	// ImagePath, WorkPath and ParentPath are as in CheckpointOptions.
	ImagePath  string
	WorkPath   string
	ParentPath string
}

// Checkpoint writes the running or paused container to an image. When that
// fails, CRIU's log is kept in the bundle and its last error is told.
func (r *Runtime) Checkpoint(ctx context.Context, id string, o CheckpointOptions) (err error) {
	c := r.begin(ctx, "checkpoint", id, r.Limits.Checkpoint)
	defer c.end(&err)
	work, done, err := r.criuWork(o.WorkPath)
	if err != nil {
		return err
	}
	defer done()
	var actions []runc.CheckpointAction
	if !o.Exit {
		actions = append(actions, runc.LeaveRunning)
	}
	err = c.runtime.Checkpoint(c.ctx, id, &runc.CheckpointOpts{
		ImagePath:                r.criuImage(o.ImagePath),
		WorkDir:                  work,
		ParentPath:               o.ParentPath,
		AllowOpenTCP:             o.OpenTCP,
		AllowExternalUnixSockets: o.ExternalUnixSockets,
		AllowTerminal:            o.Terminal,
		FileLocks:                o.FileLocks,
		EmptyNamespaces:          o.EmptyNamespaces,
		Cgroups:                  runc.CgroupMode(o.CgroupsMode),
	}, actions...)
	if err != nil {
		c.criu = r.keepCriuLog(filepath.Join(work, "dump.log"), dumpLog)
	}
	return err
}

// Restore makes the container anew from an image; its processes run when it
// returns. As with Create, the caller has announced the launch and adopts the
// returned pid.
//
// runc's --no-subreaper is left out: crun and youki do not know it, and runc
// has ended by the time there could be anything to reap.
func (r *Runtime) Restore(ctx context.Context, id string, o RestoreOptions, s Streams) (pid int, err error) {
	c := r.begin(ctx, "restore", id, r.Limits.Launch)
	c.said = s.Said
	defer c.end(&err)
	work := o.WorkPath
	if work == "" {
		work = r.options.CriuWorkPath
	}
	work, done, err := r.criuWork(work)
	if err != nil {
		return 0, err
	}
	defer done()
	pid, err = c.launch(r.bundle.InitPidFile(), func(pidFile string) error {
		_, err := c.runtime.Restore(c.ctx, id, string(r.bundle), &runc.RestoreOpts{
			CheckpointOpts: runc.CheckpointOpts{
				ImagePath:  r.criuImage(o.ImagePath),
				WorkDir:    work,
				ParentPath: o.ParentPath,
			},
			IO:            s.io(),
			ConsoleSocket: s.console(),
			PidFile:       pidFile,
			Detach:        true,
			NoPivot:       r.options.NoPivotRoot,
		})
		return err
	})
	if err != nil {
		c.criu = r.keepCriuLog(filepath.Join(work, "restore.log"), restoreLog)
	}
	return pid, err
}

func (r *Runtime) criuImage(path string) string {
	if path != "" {
		return path
	}
	return r.options.CriuImagePath
}

// criuWork returns the folder for CRIU's own files, and what is to be done
// when CRIU has ended. One that nobody has named is ours: it is made in the
// container's work folder, which is on disk, and removed.
func (r *Runtime) criuWork(path string) (_ string, done func(), err error) {
	if path != "" {
		return path, func() {}, nil
	}
	parent := r.bundle.Work()
	if _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) {
		parent = string(r.bundle)
	}
	path, err = os.MkdirTemp(parent, "criu-work-")
	if err != nil {
		return "", nil, fmt.Errorf("make a work folder for CRIU: %w", err)
	}
	if uid, gid := int(r.options.IOUID), int(r.options.IOGID); uid != 0 || gid != 0 {
		if err := os.Chown(path, uid, gid); err != nil {
			os.RemoveAll(path)
			return "", nil, fmt.Errorf("make a work folder for CRIU: %w", err)
		}
	}
	return path, func() { os.RemoveAll(path) }, nil
}

// keepCriuLog copies CRIU's log into the bundle and returns its last error
// with the place of the copy, or nothing if there is no log.
func (r *Runtime) keepCriuLog(path, name string) string {
	data, err := oci.ReadTail(path, maxKeptLog)
	if err != nil {
		return ""
	}
	kept := "CRIU's log is in " + r.bundle.Path(name)
	if err := r.bundle.Replace(name, data); err != nil {
		kept = "CRIU's log could not be kept: " + err.Error()
	}
	if line := lastCriuError(data); line != "" {
		return line + " (" + kept + ")"
	}
	return kept
}

// lastCriuError returns the last line that CRIU has marked as an error. Those of
// restored processes have the number of the process, too:
//
//	(00.015321) Error (criu/tty.c:2185): tty: Found slave peer index 1 without master
//	(00.032144)      1: Error (criu/files-reg.c:2155): Can't open file app.log
func lastCriuError(log []byte) (last string) {
	for line := range strings.Lines(string(log)) {
		mark := strings.Index(line, "Error (")
		if mark >= 0 && strings.Trim(line[:mark], "(0123456789.): pie") == "" {
			last = strings.TrimSpace(line)
		}
	}
	return last
}
