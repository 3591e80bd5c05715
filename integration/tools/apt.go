package tools

// Packages of a Debian release that need not be this machine's: fetched by
// apt itself, with apt's own checks of signatures and dependencies, but with
// lists, cache and record of installed packages in a folder of their own.
// Nothing is installed and nothing of this machine's package state is touched.

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// EnvMirror names the environment variable with the address of a Debian
// mirror. It is needed only where this machine's own package sources have no
// Debian archive (on Ubuntu, say).
const EnvMirror = "CLEAT_DEBIAN_MIRROR"

// keyring has the keys of all Debian releases, the newer ones included.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// release is one Debian release in a private apt folder.
type release struct {
	name string
	dir  string
}

// openRelease makes the apt folder dir for a release and fetches its list of
// packages.
func openRelease(ctx context.Context, dir, name string) (*release, error) {
	mirror, err := mirror(ctx)
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	for file, text := range map[string]string{
		"sources.list": fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, mirror, name),
		"status":       "", // no package counts as installed, so all that is needed is fetched
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	r := &release{name: name, dir: dir}
	if _, err := r.apt(ctx, "apt-get", "update"); err != nil {
		return nil, fmt.Errorf("fetch the package list of Debian %s (%s can name a mirror): %w", name, EnvMirror, err)
	}
	return r, nil
}

// mirror is the address of a Debian archive: the one from which this machine
// gets its own release.
func mirror(ctx context.Context) (string, error) {
	if address := os.Getenv(EnvMirror); address != "" {
		return address, nil
	}
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt-get for this machine's package sources: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		field := strings.Fields(line)
		// The archives of updates and of security fixes hold no whole release.
		if len(field) == 3 && field[2] == "main" && !strings.Contains(field[1], "-") {
			return field[0], nil
		}
	}
	return "", fmt.Errorf("this machine's package sources name no release of Debian; set %s to the address of a mirror", EnvMirror)
}

// unpack puts the files of packages, and of all that they depend on, below
// root.
func (r *release) unpack(ctx context.Context, root string, packages ...string) error {
	args := append([]string{"install", "--download-only", "--no-install-recommends", "-y"}, packages...)
	if _, err := r.apt(ctx, "apt-get", args...); err != nil {
		return fmt.Errorf("fetch packages of Debian %s: %w", r.name, err)
	}
	return r.extract(ctx, root)
}

// unpackTarget does so with the one package that a metapackage stands for (the
// first that it depends on whose name begins with prefix), and nothing that
// this depends on.
func (r *release) unpackTarget(ctx context.Context, root, metapackage, prefix string) error {
	out, err := r.apt(ctx, "apt-cache", "depends", "--important", metapackage)
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if ok && strings.HasPrefix(name, prefix) {
			if _, err := r.apt(ctx, "apt-get", "download", name); err != nil {
				return err
			}
			return r.extract(ctx, root)
		}
	}
	return fmt.Errorf("%s of Debian %s depends on no %s…:\n%s", metapackage, r.name, prefix, out)
}

// extract puts the files of what was downloaded below root and removes the
// downloads.
func (r *release) extract(ctx context.Context, root string) error {
	packages, err := filepath.Glob(filepath.Join(r.archives(), "*.deb"))
	if err != nil {
		return err
	}
	for _, file := range packages {
		if err := run(ctx, "/", nil, "dpkg-deb", "--extract", file, root); err != nil {
			return err
		}
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}

func (r *release) archives() string { return filepath.Join(r.dir, "cache", "archives") }

// apt runs one of apt's programs on the private folder. The machine's own apt
// settings (a proxy, say) hold, its sources and its state do not.
func (r *release) apt(ctx context.Context, program string, args ...string) (string, error) {
	var options []string
	for _, option := range []string{
		"Dir::State=" + filepath.Join(r.dir, "state"),
		"Dir::State::status=" + filepath.Join(r.dir, "status"),
		"Dir::Cache=" + filepath.Join(r.dir, "cache"),
		"Dir::Etc::sourcelist=" + filepath.Join(r.dir, "sources.list"),
		"Dir::Etc::sourceparts=/dev/null",
		"APT::Architecture=amd64",
		"APT::Architectures=amd64",
		"APT::Sandbox::User=root", // the folder need not be open to apt's own user
		"APT::Get::List-Cleanup=false",
		"Acquire::Languages=none",
		"Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false",
		"Acquire::Retries=3",
		"Acquire::http::Timeout=60",
	} {
		options = append(options, "-o", option)
	}
	cmd := exec.CommandContext(ctx, program, append(options, args...)...)
	cmd.Dir = r.archives() // where `apt-get download` puts its file
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}
