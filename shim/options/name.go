package options

import (
	"path"
	"strings"
)

// ownName is the middle part of the binary's own name.
const ownName = "cleat"

// RuntimeName returns the containerd runtime that a binary is found by:
// containerd-shim-NAME-VERSION is io.containerd.NAME.VERSION. A binary of
// another name, which containerd can run by its path, is io.containerd.cleat.v2.
func RuntimeName(invokedAs string) string {
	name, version := split(invokedAs)
	if name == "" {
		name, version = ownName, "v2"
	}
	return "io.containerd." + name + "." + version
}

// DefaultRuntime is the OCI runtime when nothing names another.
const DefaultRuntime = "runc"

// linkedRuntime is the OCI runtime that the name of the binary stands for:
// linked as containerd-shim-crun-v2 the shim drives crun, and runc in the place
// of containerd's own shim. Its own name stands for none.
func linkedRuntime(invokedAs string) string {
	name, _ := split(invokedAs)
	if name == ownName {
		return ""
	}
	return name
}

// split takes containerd-shim-NAME-VERSION apart. NAME may hold dashes,
// VERSION cannot, for containerd makes the file name out of the last two
// parts of a name with dots.
func split(invokedAs string) (name, version string) {
	rest, ok := strings.CutPrefix(path.Base(invokedAs), "containerd-shim-")
	if !ok {
		return "", ""
	}
	dash := strings.LastIndexByte(rest, '-')
	if dash <= 0 || dash == len(rest)-1 {
		return "", ""
	}
	return rest[:dash], rest[dash+1:]
}
