package vm

// The archive format of an initramfs ("newc", described in the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst).

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// archive writes an initramfs. Everything in it belongs to root. The first
// error is kept and given by close.
type archive struct {
	w     *bufio.Writer
	inode int
	err   error
}

func newArchive(w io.Writer) *archive { return &archive{w: bufio.NewWriterSize(w, 1<<20)} }

// entry writes the header and the name of one file; size bytes must follow.
func (a *archive) entry(path string, mode uint32, size int64, device uint64) {
	a.inode++
	a.printf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, 0, 0, 1, 0, size, 0, 0, unix.Major(device), unix.Minor(device), len(path)+1, 0, path)
	a.pad(110 + int64(len(path)) + 1)
}

func (a *archive) printf(format string, args ...any) {
	if a.err == nil {
		_, a.err = fmt.Fprintf(a.w, format, args...)
	}
}

// pad fills up to the next multiple of four after n bytes.
func (a *archive) pad(n int64) {
	if a.err == nil {
		_, a.err = a.w.Write(make([]byte, -n&3))
	}
}

func (a *archive) dir(path string, perm uint32) { a.entry(path, unix.S_IFDIR|perm, 0, 0) }
func (a *archive) char(path string, dev uint64) { a.entry(path, unix.S_IFCHR|0o666, 0, dev) }
func (a *archive) symlink(path, target string)  { a.content(path, unix.S_IFLNK|0o777, target) }
func (a *archive) text(path, content string)    { a.content(path, unix.S_IFREG|0o644, content) }
func (a *archive) program(path, script string)  { a.content(path, unix.S_IFREG|0o755, script) }

func (a *archive) content(path string, mode uint32, content string) {
	a.entry(path, mode, int64(len(content)), 0)
	a.printf("%s", content)
	a.pad(int64(len(content)))
}

// file copies a regular file of this machine.
func (a *archive) file(path, source string) {
	in, err := os.Open(source)
	if err != nil {
		a.fail(err)
		return
	}
	defer in.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &st); err != nil {
		a.fail(fmt.Errorf("stat %s: %w", source, err))
		return
	}
	a.entry(path, st.Mode, st.Size, 0)
	if a.err != nil {
		return
	}
	n, err := io.Copy(a.w, in)
	if err == nil && n != st.Size {
		err = fmt.Errorf("%s changed while it was read", source)
	}
	a.fail(err)
	a.pad(n)
}

// tree copies all below a folder of this machine, without what skip names.
// It returns the paths that it has written.
func (a *archive) tree(path, source string, skip func(path string) bool) map[string]bool {
	written := map[string]bool{}
	a.fail(filepath.WalkDir(source, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || a.err != nil {
			return err
		}
		name, err := filepath.Rel(source, file)
		if err != nil || name == "." {
			return err
		}
		if skip(name) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		inside := filepath.Join(path, name)
		switch entry.Type() {
		case fs.ModeDir:
			info, err := entry.Info()
			if err != nil {
				return err
			}
			perm := uint32(info.Mode().Perm())
			if info.Mode()&fs.ModeSticky != 0 {
				perm |= unix.S_ISVTX
			}
			a.dir(inside, perm)
		case fs.ModeSymlink:
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			a.symlink(inside, target)
		case 0:
			a.file(inside, file)
		default:
			return nil // sockets and the like are nobody's content
		}
		written[name] = true
		return nil
	}))
	return written
}

// fail keeps the first error.
func (a *archive) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

// close ends the archive.
func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, 0, 0)
	a.fail(a.w.Flush())
	return a.err
}
