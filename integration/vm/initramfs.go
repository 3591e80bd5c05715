package vm

// What a machine holds: Debian's packages, the programs of the build folder,
// the tests and the few files that the installation of a package would make.

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/tools"
	"github.com/cleatrun/cleat/integration/vm/job"
)

// programs are the files that a machine gets besides Debian's.
type programs struct {
	tools tools.Tools
	init  string // package vm/guest
	tests string // package integration's test binary
	pods  string // package cri's
	walks string // package walk's
	chaos string // that of the command chaos
	cast  string // what it brings along
	older string // tree of packages with an older containerd

	packages []string // test binaries of the shim's packages

	variants []string // tools.Variants of the shim, and tools.Tools.Reference
}

// older is the containerd that the newest takes the place of, in a machine of the
// same release of Debian.
var older = tools.Packaged()[len(tools.Packaged())-1]

// unused are folders of Debian's packages that only people read.
var unused = map[string]bool{
	"usr/include": true, "usr/share/doc": true, "usr/share/man": true, "usr/share/locale": true,
	"usr/share/lintian": true, "usr/share/bash-completion": true, "usr/share/zsh": true,
	"usr/share/perl5": true, "usr/share/common-licenses": true, "usr/share/info": true,
	"boot": true,
}

// configuration is what the packages' installation scripts would have written.
var configuration = map[string]string{
	"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n" +
		"daemon:x:1:1:daemon:/:/bin/false\n" +
		"messagebus:x:100:100:dbus:/:/bin/false\n" +
		"nobody:x:65534:65534:nobody:/:/bin/false\n",
	"etc/group": "root:x:0:\ndaemon:x:1:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nkmem:x:15:\nutmp:x:43:\n" +
		"users:x:50:\nmessagebus:x:100:\nsystemd-journal:x:101:\nnogroup:x:65534:\n",
	"etc/hosts":      "127.0.0.1 localhost guest\n",
	"etc/hostname":   "guest\n",
	"etc/machine-id": "c1ea70c1ea70c1ea70c1ea70c1ea70c1\n",
	"etc/fstab":      "",
	// On a system with systemd the job runs as a service. Its processes that
	// are not the test's own (daemons that outlive it) are the machine's.
	"etc/systemd/system/" + service: `[Unit]
Description=the job that the host has given
Requires=dbus.socket
After=dbus.socket basic.target
[Service]
ExecStart=` + job.Guest + ` run
KillMode=process
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=1048576
StandardOutput=journal+console
StandardError=journal+console
`,
}

// service is the unit that runs the job.
const service = "cleat-job.service"

// writeInitramfs writes a machine's whole content to path.
func writeInitramfs(path string, guest tools.Guest, p programs, j job.Job) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	a := newArchive(out)
	have := a.tree("", guest.Root, func(path string) bool { return unused[path] })
	// Without these the kernel gives init no standard streams.
	a.char("dev/console", unix.Mkdev(5, 1))
	a.char("dev/null", unix.Mkdev(1, 3))
	a.symlink("init", strings.TrimPrefix(job.Guest, "/"))

	if err := addApplets(a, guest, have); err != nil {
		return err
	}
	for _, name := range []string{"iptables", "iptables-restore", "iptables-save", "ip6tables", "ip6tables-restore", "ip6tables-save"} {
		a.symlink("usr/sbin/"+name, "xtables-nft-multi")
	}
	for path, content := range configuration {
		a.text(path, content)
	}
	description, err := json.Marshal(j)
	if err != nil {
		return err
	}
	a.dir("cleat", 0o755)
	a.text(inside(job.Path), string(description))
	a.file(inside(job.Guest), p.init)
	a.file(inside(job.Tests), p.tests)
	a.file(inside(job.PodTests), p.pods)
	a.file(inside(job.Walks), p.walks)
	a.file(inside(job.Chaos), p.chaos)
	a.program(inside(job.Packages), runPackages)
	for _, binary := range p.packages {
		a.file(inside(job.Packages)+"-"+filepath.Base(binary), binary)
	}
	a.dir(inside(job.Programs), 0o755)
	a.dir(inside(job.Programs)+"/cni", 0o755)
	a.file(inside(job.Programs)+"/"+tools.Cast, p.cast)
	// tools.EnsureBorrowed's folder: criu and those of iptables are the system's.
	a.symlink(inside(job.Programs)+"/borrowed", "/usr/sbin")
	a.dir(inside(job.Programs)+"/"+filepath.Base(filepath.Dir(p.tools.With(older).Ctr)), 0o755)
	for from, to := range map[string]string{"containerd": p.tools.With(older).Containerd, "ctr": p.tools.With(older).Ctr} {
		name, err := filepath.Rel(p.tools.Dir, to)
		if err != nil {
			return err
		}
		a.file(filepath.Join(inside(job.Programs), name), filepath.Join(p.older, "usr", "bin", from))
	}
	a.dir(inside(job.Programs)+"/"+filepath.Base(filepath.Dir(p.variants[0])), 0o755)
	for _, program := range append(p.tools.Files(), p.variants...) {
		name, err := filepath.Rel(p.tools.Dir, program)
		if err != nil {
			return err
		}
		a.file(filepath.Join(inside(job.Programs), name), program)
	}
	if err := a.close(); err != nil {
		return fmt.Errorf("write the initramfs %s: %w", path, err)
	}
	return out.Close()
}

// inside is an absolute path of the machine as the archive spells it.
func inside(path string) string { return strings.TrimPrefix(path, "/") }

// addApplets gives the commands that no other package brings to busybox.
func addApplets(a *archive, guest tools.Guest, have map[string]bool) error {
	busybox := filepath.Join(guest.Root, "usr/bin/busybox")
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("ask %s for its applets: %w", busybox, err)
	}
	for name := range strings.FieldsSeq(string(applets)) {
		if !have["usr/bin/"+name] && !have["usr/sbin/"+name] {
			a.symlink("usr/bin/"+name, "busybox")
		}
	}
	return nil
}
