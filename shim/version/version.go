// Package version tells which release of the shim this is.
package version

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

// Get returns the release of this binary and the commit it was built
// from: Release and Revision, else what the Go tool recorded. Either may be
// empty.
func Get() (release, revision string) {
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

// Text is what -v prints for the program name, in the form of containerd's own
// programs.
func Text(name string) string {
	release, revision := Get()
	return fmt.Sprintf("%s:\n  Version:  %s\n  Revision: %s\n  Go version: %s\n\n",
		filepath.Base(name), release, revision, runtime.Version())
}
