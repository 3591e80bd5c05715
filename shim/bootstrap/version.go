package bootstrap

import (
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
)

// Release and Revision are what main was told by the linker.
var (
	Release  string
	Revision string
)

// Versions returns the release of this binary and the commit it was built
// from: Release and Revision, else what the Go tool recorded. Either may be
// empty.
func Versions() (release, revision string) {
	release, revision = Release, Revision
	if release != "" && revision != "" {
		return release, revision
	}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return release, revision
	}
	if release == "" {
		release = build.Main.Version
	}
	for _, setting := range build.Settings {
		if revision == "" && setting.Key == "vcs.revision" {
			revision = setting.Value
		}
	}
	return release, revision
}

// Version is what -v prints, in the form of containerd's own programs.
func (c Call) Version() string {
	release, revision := Versions()
	return fmt.Sprintf("%s:\n  Version:  %s\n  Revision: %s\n  Go version: %s\n\n",
		filepath.Base(c.InvokedAs), release, revision, runtime.Version())
}
