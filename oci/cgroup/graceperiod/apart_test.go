//go:build amd64 || arm64

package graceperiod

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// begunApart is BeginApart, and waits for the end of its child.
func begunApart(t *testing.T) (took time.Duration) {
	t.Helper()
	began := time.Now()
	BeginApart()
	took = time.Since(began)
	for children := 0; ; {
		_, err := unix.Wait4(-1, nil, 0, nil)
		switch {
		case err == nil:
			children++
		case errors.Is(err, unix.ECHILD):
			if children != 1 {
				t.Fatalf("it has made %d children", children)
			}
			return took
		case err != unix.EINTR:
			t.Fatal(err)
		}
	}
}

func TestBeginApartDoesNotWaitAndLeavesTheProcessWhereItIs(t *testing.T) {
	before := groups(t)
	var took []time.Duration
	for range 7 {
		time.Sleep(rest)
		took = append(took, begunApart(t))
	}
	t.Logf("it took %s", took)
	if least := slices.Min(took); least > 2*time.Millisecond {
		t.Errorf("it took %s at least", least)
	}
	if after := groups(t); after != before {
		t.Errorf("the process was in\n%sand is in\n%s", before, after)
	}
}

// The thread that makes the child handles no signal meanwhile.
func TestBeginApartLeavesTheSignalsOfItsThread(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	mask := func() (set unix.Sigset_t) {
		if err := unix.PthreadSigmask(unix.SIG_SETMASK, nil, &set); err != nil {
			t.Fatal(err)
		}
		return set
	}
	some := unix.Sigset_t{}
	some.Val[0] = 1 << (unix.SIGUSR2 - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &some, nil); err != nil {
		t.Fatal(err)
	}
	defer unix.PthreadSigmask(unix.SIG_UNBLOCK, &some, nil)
	before := mask()
	begunApart(t)
	if after := mask(); after != before {
		t.Errorf("blocked are %x, and before %x", after.Val, before.Val)
	}
}

func TestWhatComesAfterBeginApartDoesNotWait(t *testing.T) {
	testNoWaitAfter(t, func(t *testing.T) { begunApart(t) })
}

// stopped asks this program for a child that is stopped in its only step, because
// descriptor 3 is a pipe that is full.
const stopped = "CLEAT_TEST_STOPPED_CHILD"

func init() {
	if os.Getenv(stopped) != "" {
		child(3)
		fmt.Println("gone")
		os.Exit(0)
	}
}

// containerd reads what `start` writes until nobody can write there any more.
func TestNobodyWaitsForTheChild(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	defer read.Close() // lets the child go
	write.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := write.Write(bytes.Repeat([]byte{0}, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the pipe does not get full: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), stopped+"=1")
	// As a file of its own, which is not non-blocking.
	file, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", write.Fd()), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd.ExtraFiles = []*os.File{file}
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said.(*os.File).SetReadDeadline(time.Now().Add(10 * time.Second))
	text, err := io.ReadAll(said)
	if err != nil || string(text) != "gone\n" {
		t.Errorf("read %q, %v", text, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
