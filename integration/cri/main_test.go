// Package cri tests the shim as a kubelet meets it: containerd's CRI, driven by
// gRPC, with pods of several containers, streams, logs, statistics and events.
//
// No kubelet, no network and no registry is needed: the tests run in a room of
// their own (room_test.go), and images are imported from files.
package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

// envRuntime is the variable of package integration's tests: the runtime under
// test, the shim of this repository when it is not set.
const envRuntime = "CLEAT_TEST_RUNTIME"

const (
	ourRuntime   = "io.containerd.cleat.v2"
	stockRuntime = "io.containerd.runc.v2" // the shim of the same release of containerd
)

// The runtime handlers of the tests' containerds. They are two ways to say the
// same.
const (
	typed = "typed" // runtime_path, and options of runc's type
	plain = "plain" // nothing but the runtime's name
)

const (
	testTime   = 3 * time.Minute
	settleTime = 30 * time.Second
	setUpTime  = 20 * time.Minute
)

// pauseImage is what a pod's own container is made of. Its program does what
// Kubernetes' pause does: it is there, and waits for orphans.
const pauseImage = "cleat.test/pause:latest"

// What TestMain has made. None of it changes afterwards.
var (
	programs    tools.Tools
	runtimeName = ourRuntime
	imageFile   string
	pauseFile   string
)

func TestMain(m *testing.M) {
	place.KeepIfAsked()
	if !inRoom() {
		os.Exit(runInRoom())
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if name := os.Getenv(envRuntime); name != "" {
		runtimeName = name
	}
	files, err := place.New()
	if err == nil {
		defer files.Remove()
		err = setUp(files)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "set up the tests:", err)
		return 1
	}
	code := m.Run()
	if err := endShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// setUp furnishes the room and makes the images, in files of the place.
func setUp(files *place.Place) error {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	var err error
	if programs, err = tools.Ensure(ctx, os.Stdout); err != nil {
		return err
	}
	release, err := tools.Chosen()
	if err != nil {
		return err
	}
	programs = programs.With(release)
	if err := furnish(); err != nil {
		return err
	}
	busybox, err := image.New(programs.Busybox)
	if err != nil {
		return err
	}
	imageFile, pauseFile = files.Path("image.tar"), files.Path("pause.tar")
	if err := image.WriteFile(busybox, image.Name, imageFile); err != nil {
		return err
	}
	pause, err := mutate.Config(busybox, v1.Config{
		Env:        []string{"PATH=/bin"},
		Entrypoint: []string{"sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 1000000 & wait $!; done"},
	})
	if err != nil {
		return fmt.Errorf("make the pause image: %w", err)
	}
	return image.WriteFile(pause, pauseImage, pauseFile)
}

// shimProgram is that of the runtime under test.
func shimProgram() string {
	if runtimeName == stockRuntime {
		return programs.StockShim
	}
	name := strings.Split(strings.TrimPrefix(runtimeName, "io.containerd."), ".")
	return filepath.Join(programs.Dir, "containerd-shim-"+strings.Join(name, "-"))
}

// handlers is the configuration of the runtimes under test.
func handlers() string {
	runtimePath := fmt.Sprintf("runtime_path = %q", shimProgram())
	if programs.Release.Older("1.7") {
		runtimePath = "" // it has no such key: the shim is the drop-in (config)
	}
	return fmt.Sprintf(`
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.%s]
  runtime_type = "io.containerd.runc.v2"
  %s
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.%[1]s.options]
    BinaryName = %[3]q
    NoNewKeyring = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.%[4]s]
  runtime_type = %[5]q
`, typed, runtimePath, programs.Runc, plain, runtimeName)
}

// config is what a containerd of the tests is made from.
func config() daemon.Config {
	var path []string
	if programs.Release.Older("1.7") || runtimeName == stockRuntime {
		path = append(path, dropIn) // before the folder with the newest's own shim
	}
	return daemon.Config{
		Tools:   programs,
		Path:    path,
		Runtime: runtimeName,
		Image:   imageFile,
		Kubernetes: &daemon.Kubernetes{
			Pause:     pauseImage,
			PauseFile: pauseFile,
			Handlers:  handlers(),
			Networks:  networks,
			Plugins:   programs.CNI,
		},
	}
}

// startShared starts the containerd that most tests use.
var startShared = sync.OnceValues(func() (*daemon.Daemon, error) {
	sharedStarted = true
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	return daemon.Start(ctx, config())
})

var sharedStarted bool // read when all tests have ended

// endShared ends the shared containerd. It is an error when tests have left
// anything on it.
func endShared() error {
	if !sharedStarted {
		return nil
	}
	d, err := startShared()
	if err != nil {
		return nil // the tests have said so
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	if left := d.Settled(ctx, settleTime); len(left) > 0 {
		err = fmt.Errorf("after all tests there still is:\n  %s", strings.Join(left, "\n  "))
	}
	return errors.Join(err, d.Remove())
}

// cannot ends a test because containerd has refused what it is about. That is a
// failure unless this release is known to, in words that match a pattern.
func cannot(t *testing.T, known string, refusal error) {
	t.Helper()
	words := regexp.MustCompile(known).FindString(refusal.Error())
	if known == "" || words == "" {
		t.Fatalf("containerd, known to refuse with %q, says %v", known, refusal)
	}
	t.Skip(tools.Cannot + words)
}
