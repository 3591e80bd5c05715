// Package integration tests the shim as its users meet it: a real containerd,
// the real runc, ctr and containerd's Go client.
//
// Each test is named for a promise. Most share one containerd; those that do
// not run in parallel have it to themselves and look at all that is left over
// on it, the others only at what is their own, and the last word is TestMain's.
package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

// envRuntime names the environment variable with the runtime that the tests
// use: the shim under test when it is not set. With io.containerd.runc.v2 the
// same tests run against containerd's own shim, which shows what is particular
// to ours (some promises it does not keep) and what is wrong with a test.
const envRuntime = "CLEAT_TEST_RUNTIME"

// ourRuntime is the name by which containerd finds the shim under test.
const ourRuntime = "io.containerd.cleat.v2"

// setUpTime bounds the building of all programs with cold caches.
const setUpTime = 20 * time.Minute

// What TestMain has made. None of it changes afterwards.
var (
	programs    tools.Tools
	runtimeName = ourRuntime
	testImage   v1.Image
	imageFile   string // testImage, for ctr images import
)

func TestMain(m *testing.M) {
	place.KeepIfAsked()
	ownIfAsked()
	guestIfAsked()
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

// setUp makes the programs, and the image in a file of the place.
func setUp(files *place.Place) error {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	var err error
	if programs, err = tools.Ensure(ctx, os.Stdout); err != nil {
		return err
	}
	if testImage, err = image.New(programs.Busybox); err != nil {
		return err
	}
	imageFile = files.Path("image.tar")
	return image.WriteFile(testImage, image.Name, imageFile)
}

// startShared starts the containerd that most tests use. It has the test image.
var startShared = sync.OnceValues(func() (*daemon.Daemon, error) {
	sharedStarted = true
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	return daemon.Start(ctx, config())
})

var sharedStarted bool // read when all tests have ended

// config is what the tests' containerds are made from, unless they want more.
func config() daemon.Config {
	return daemon.Config{Tools: programs, Runtime: runtimeName, Image: imageFile}
}

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
		err = fmt.Errorf("after all tests there still is:\n%s", lines(left))
	}
	return errors.Join(err, d.Remove())
}
