package integration

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/place"
)

// envOwner makes this program nothing but the owner of a place, with a process
// and a cgroup in it, for TestPlaceIsRemovedWhenItsOwnerIsKilled.
const envOwner = "CLEAT_TEST_OWNER"

// ownIfAsked is such an owner's life. It ends by a signal.
func ownIfAsked() {
	if os.Getenv(envOwner) == "" {
		return
	}
	p, err := place.New()
	if err == nil {
		cmd := exec.Command("sleep", "1000")
		cmd.Env = p.Environ()
		err = cmd.Start()
	}
	if err == nil {
		err = os.Mkdir(ownersGroup(p), 0o755)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(p.Dir)
	time.Sleep(testTime)
	os.Exit(1)
}

// ownersGroup is a cgroup beside that of the place's containers, as tests make them
// for what is not a container's.
func ownersGroup(p *place.Place) string {
	dir := "/sys/fs/cgroup"
	if _, err := os.Stat(dir + "/memory"); err == nil {
		dir += "/memory"
	}
	return filepath.Join(dir, p.Namespace+"-owner")
}

// TestPlaceIsRemovedWhenItsOwnerIsKilled kills a program like this one, so that
// only the keeper of its place is left, and takes away where the keeper writes.
func TestPlaceIsRemovedWhenItsOwnerIsKilled(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	owner := exec.Command(self)
	owner.Env = append(os.Environ(), envOwner+"=1")
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	owner.Stderr = owner.Stdout
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	dir, err := bufio.NewReader(out).ReadString('\n')
	dir = strings.TrimSpace(dir)
	if err != nil || !strings.HasPrefix(dir, "/") {
		t.Fatalf("the owner says %q, %v", dir, err)
	}
	out.Close()
	if err := owner.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	owner.Wait()
	p := &place.Place{Dir: dir, Namespace: filepath.Base(dir)}
	eventually(t, func() error {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is still there: %v", dir, err)
		}
		if left := p.Processes(); len(left) > 0 {
			return fmt.Errorf("still there: %v", left)
		}
		if _, err := os.Stat(ownersGroup(p)); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is still there: %v", ownersGroup(p), err)
		}
		return nil
	})
}
