package walk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cleatrun/cleat/integration/conformance/cell"
	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

// The limits are for a slow machine; nothing waits for one to pass.
const (
	setUpTime  = 30 * time.Minute // a first build of all releases
	stepTime   = 2 * time.Minute
	settleTime = 30 * time.Second
)

// sockets is where all shims have their sockets under a containerd before 2.3.
const sockets = "/run/containerd/s"

// What TestMain has made. None of it changes afterwards.
var (
	programs  tools.Tools
	testImage v1.Image
	imageFile string
)

func TestMain(m *testing.M) {
	place.KeepIfAsked()
	cell.EnterIfAsked()
	if os.Getenv(EnvCell) == "" {
		code, err := runInCell()
		if err != nil {
			fmt.Fprintln(os.Stderr, "run the walks in a cell:", err)
			code = 1
		}
		os.Exit(code)
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	files, err := place.New()
	if err == nil {
		defer files.Remove()
		err = setUp(files)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "set up the walks:", err)
		return 1
	}
	if err := os.MkdirAll(sockets, 0o711); err != nil {
		fmt.Fprintln(os.Stderr, "set up the walks:", err)
		return 1
	}
	code := m.Run()
	left := place.Settled(settleTime, func() (left []string) {
		list, err := os.ReadDir(sockets)
		if err != nil {
			return []string{err.Error()}
		}
		for _, socket := range list {
			left = append(left, socket.Name())
		}
		return left
	})
	if len(left) > 0 {
		fmt.Fprintf(os.Stderr, "in %s there still is:\n  %s\n", sockets, strings.Join(left, "\n  "))
		return 1
	}
	return code
}

func setUp(files *place.Place) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	if programs, err = tools.Ensure(ctx, os.Stdout); err != nil {
		return err
	}
	if testImage, err = image.New(programs.Busybox); err != nil {
		return err
	}
	imageFile = files.Path("image.tar")
	return image.WriteFile(testImage, image.Name, imageFile)
}

// runInCell builds and fetches what is needed and runs this program once more,
// in a cell.
func runInCell() (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	built, err := tools.Ensure(ctx, os.Stdout)
	if err != nil {
		return 0, err
	}
	for _, c := range releases() {
		if err := tools.EnsureContainerd(ctx, os.Stdout, c); err != nil {
			return 0, err
		}
	}
	if err := tools.EnsureEarlier(ctx, os.Stdout); err != nil {
		return 0, err
	}
	if all() {
		if _, err := tools.EnsureRuntimes(ctx, os.Stdout); err != nil {
			return 0, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	env := []string{EnvCell + "=1", tools.EnvBuilt + "=" + cell.Folder(0)}
	for _, variable := range os.Environ() {
		if strings.HasPrefix(variable, EnvAll+"=") {
			env = append(env, variable)
		}
	}
	args := []string{filepath.Base(self)}
	for _, arg := range os.Args[1:] {
		if !strings.HasPrefix(arg, "-test.testlogfile=") { // a file that is not in the cell
			args = append(args, arg)
		}
	}
	ended, err := cell.Run(context.Background(), cell.Command{
		Folders: []string{built.Dir, filepath.Dir(self)},
		Args:    args,
		Env:     env,
		Busybox: filepath.Base(built.Busybox),
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
	})
	if err != nil {
		return 0, err
	}
	if len(ended.Left) > 0 {
		return 0, fmt.Errorf("when the walks had ended there still was:\n  %s", strings.Join(ended.Left, "\n  "))
	}
	return ended.Status, nil
}

// all says whether all releases and OCI runtimes are walked on.
func all() bool { return os.Getenv(EnvAll) != "" }

// releases are those of containerd that are walked on.
func releases() []tools.Containerd {
	if all() {
		return tools.Containerds
	}
	return tools.Packaged()
}

// runtimes are the OCI runtimes that are walked with.
func runtimes() []string {
	if all() {
		return Runtimes
	}
	return Runtimes[:1]
}
