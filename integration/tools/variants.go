package tools

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Variant is the shim as it is, but for its name and the versions of the state
// that it has (package shim/upgrade); those that are empty are the shim's.
type Variant struct {
	Name                   string
	Version, Floor, Oldest string
}

// The variants that tests upgrade to and from.
var (
	// NextState writes a later version, and can go back.
	NextState = Variant{Name: "next", Version: "3"}
	// FutureState knows nothing of the present version.
	FutureState = Variant{Name: "future", Version: "4", Floor: "4", Oldest: "4"}
	// ApartState reads the present version and cannot go back to it.
	ApartState = Variant{Name: "apart", Version: "3", Floor: "3"}
	// LaterState is as FutureState, for a test beside.
	LaterState = Variant{Name: "later", Version: "3", Floor: "3", Oldest: "3"}

	Variants = []Variant{NextState, FutureState, ApartState, LaterState}
)

// Variant builds one and says where it is.
func (t Tools) Variant(ctx context.Context, v Variant) (string, error) {
	flags := "-s -w -X main.release=" + v.Name
	for name, value := range map[string]string{"stateVersion": v.Version, "stateFloor": v.Floor, "stateOldest": v.Oldest} {
		if value != "" {
			flags += fmt.Sprintf(" -X github.com/cleatrun/cleat/shim/upgrade.%s=%s", name, value)
		}
	}
	return t.beside(ctx, v.Name, ".", "-tags", "no_grpc", "-ldflags", flags, "./cmd/containerd-shim-cleat-v2")
}

// Unstamped builds the shim as the Makefile does, but without a version, and says
// where it is: those of two commits are equal if the program is the same. Where
// nothing is built it is the shim itself.
func (t Tools) Unstamped(ctx context.Context) (string, error) {
	if os.Getenv(EnvBuilt) != "" {
		return t.Shim, nil
	}
	root, err := repository()
	if err != nil {
		return "", err
	}
	path := filepath.Join(t.Dir, "variants", "unstamped")
	// What Go stamps by itself is a version, too.
	env := append(alone, "GOFLAGS="+os.Getenv("GOFLAGS")+" -buildvcs=false")
	return path, run(ctx, root, env, "make", "--no-print-directory", "build", "VERSION=", "REVISION=", "SHIM="+path, "TOOL="+os.DevNull)
}

// Reference builds the smallest program that is made as a shim is (package
// reference), and says where it is.
func (t Tools) Reference(ctx context.Context) (string, error) {
	return t.beside(ctx, "reference", "integration", "-ldflags", "-s -w", "./reference")
}

// beside builds a program from a folder of the repository. It is at the same
// place in each folder that EnvBuilt can name, where it is taken as it is.
func (t Tools) beside(ctx context.Context, name, from string, args ...string) (string, error) {
	path := filepath.Join(t.Dir, "variants", name)
	if os.Getenv(EnvBuilt) != "" {
		_, err := os.Stat(path)
		return path, err
	}
	root, err := repository()
	if err != nil {
		return "", err
	}
	args = append([]string{"build", "-trimpath", "-o", path}, args...)
	return path, run(ctx, filepath.Join(root, from), []string{"CGO_ENABLED=0"}, "go", args...)
}
