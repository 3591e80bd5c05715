package cgroup

// These tests compare what is read here with what the library reads that decides
// in containerd's own shim.

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// library is the library's reader of the same group. What containerd's own shim
// asks it to ignore, it ignores.
func library(t testing.TB, g *Group) (stat func() (proto.Message, error)) {
	t.Helper()
	if g.mode == V2 {
		m, err := cgroup2.Load(g.paths[""], cgroup2.WithMountpoint(g.root))
		if err != nil {
			t.Fatal(err)
		}
		return func() (proto.Message, error) { return m.Stat() }
	}
	subsystems := func() (active []cgroup1.Subsystem, err error) {
		all := []cgroup1.Subsystem{
			cgroup1.NewPids(g.root), cgroup1.NewCpu(g.root), cgroup1.NewCpuacct(g.root),
			cgroup1.NewMemory(g.root, cgroup1.OptionalSwap()), cgroup1.NewRdma(g.root),
			cgroup1.NewBlkio(g.root, cgroup1.ProcRoot(filepath.Dir(partitions))),
		}
		h, err := cgroup1.NewHugetlb(g.root)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			all = append(all, h)
		}
		for _, s := range all {
			if g.paths[string(s.Name())] != "" {
				active = append(active, s)
			}
		}
		return active, nil
	}
	path := func(name cgroup1.Name) (string, error) { return g.paths[string(name)], nil }
	c, err := cgroup1.Load(path, cgroup1.WithHierarchy(subsystems))
	if err != nil {
		t.Fatal(err)
	}
	return func() (proto.Message, error) {
		return c.Stat(func(err error) error {
			if isGone(err) || errors.Is(err, os.ErrPermission) {
				return nil
			}
			return err
		})
	}
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What is read of a group at rest is, to the byte, what the library reads. Some
// counters move by themselves, so a reading counts that the library has had before
// and after.
func TestStatIsThatOfTheLibrary(t *testing.T) {
	onEach(t, func(t *testing.T, tr tree, group func(pid int) *Group) {
		startIn(t, "spin:20ms", true, tr.all()...)
		startIn(t, "use:8388608", true, tr.all()...)
		p := startIn(t, "write:"+filepath.Join(t.TempDir(), "file"), true, tr.all()...)
		g := group(p.Process.Pid)
		tr.nested(t, "inner")
		read := library(t, g)
		for range 1000 {
			before, err := read()
			if err != nil {
				t.Fatal(err)
			}
			ours, err := g.Stat()
			if err != nil {
				t.Fatal(err)
			}
			after, err := read()
			if err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(before, after) {
				continue
			}
			if want := encode(t, before); !bytes.Equal(ours.Encoded, want) || ours.Message != string(before.ProtoReflect().Descriptor().FullName()) {
				t.Fatalf("%s has\n%s\nthe library\n%s", ours.Message, prototext.Format(decode(t, ours)), prototext.Format(before))
			}
			t.Logf("%d bytes: %s", len(ours.Encoded), prototext.MarshalOptions{}.Format(before))
			return
		}
		t.Fatal("the group is never at rest")
	})
}

// recorded1 are the files of a group on V1, by path: of this kernel where it has
// them, of others where it has not.
var recorded1 = map[string]string{
	"memory/memory.usage_in_bytes":     "8843264\n",
	"memory/memory.max_usage_in_bytes": "9043968\n",
	"memory/memory.failcnt":            "3\n",
	"memory/memory.limit_in_bytes":     "9223372036854771712\n",
	"memory/memory.stat": "cache 4096\nrss 8388608\nrss_huge 0\nshmem 0\nmapped_file 12288\ndirty 0\nwriteback 0\nworkingset_refault_anon 0\n" +
		"swap 0\npgpgin 2121\npgpgout 72\npgfault 2110\npgmajfault 1\ninactive_anon 8388608\nactive_anon 4096\ninactive_file 0\nactive_file 0\nunevictable 0\n" +
		"hierarchical_memory_limit 9223372036854771712\nhierarchical_memsw_limit 9223372036854771712\ntotal_cache 4096\ntotal_rss 8388608\ntotal_rss_huge 2097152\n" +
		"total_mapped_file 12288\ntotal_dirty 1\ntotal_writeback 2\ntotal_pgpgin 2121\ntotal_pgpgout 72\ntotal_pgfault 2110\ntotal_pgmajfault 1\n" +
		"total_inactive_anon 8388608\ntotal_active_anon 4096\ntotal_inactive_file 3\ntotal_active_file 4\ntotal_unevictable 5\n",
	"memory/memory.oom_control":                 "oom_kill_disable 0\nunder_oom 1\noom_kill 2\n",
	"memory/memory.memsw.usage_in_bytes":        "8843264\n",
	"memory/memory.memsw.max_usage_in_bytes":    "9043968\n",
	"memory/memory.memsw.failcnt":               "0\n",
	"memory/memory.memsw.limit_in_bytes":        "9223372036854771712\n",
	"memory/memory.kmem.usage_in_bytes":         "450560\n",
	"memory/memory.kmem.max_usage_in_bytes":     "651264\n",
	"memory/memory.kmem.failcnt":                "0\n",
	"memory/memory.kmem.limit_in_bytes":         "9223372036854771712\n",
	"memory/memory.kmem.tcp.usage_in_bytes":     "0\n",
	"memory/memory.kmem.tcp.max_usage_in_bytes": "0\n",
	"memory/memory.kmem.tcp.failcnt":            "0\n",
	"memory/memory.kmem.tcp.limit_in_bytes":     "9223372036854771712\n",
	"pids/pids.current":                         "7\n",
	"pids/pids.max":                             "max\n",
	"cpuacct/cpuacct.usage":                     "20731843\n",
	"cpuacct/cpuacct.usage_percpu":              "20000000 731843 \n",
	"cpuacct/cpuacct.stat":                      "user 1\nsystem 2\n",
	"cpu/cpu.shares":                            "1024\n",
	"cpu/cpu.stat":                              "nr_periods 4\nnr_throttled 3\nthrottled_time 200000\nnr_bursts 0\nburst_time 0\n",
	"blkio/blkio.reset_stats":                   "",
	"blkio/blkio.throttle.io_serviced":          "254:0 Read 1\n254:0 Write 2\n254:0 Sync 3\n254:0 Async 0\n254:0 Discard 0\n254:0 Total 3\n7:1 Read 1\nTotal 4\n",
	"blkio/blkio.throttle.io_service_bytes":     "254:0 Read 4096\n254:0 Write 1048576\n254:0 Total 1052672\n8:16 4\nTotal 1052672\n",
	"partitions":                                "major minor  #blocks  name\n\n 254        0  268435456 vda\n 254        1  268435440 vda1\n   8       16  1 sdb\n",
	"rdma/rdma.current":                         "mlx4_0 hca_handle=2 hca_object=2000\nocrdma1 hca_handle=3 hca_object=max\n",
	"rdma/rdma.max":                             "mlx4_0 hca_handle=max hca_object=max\nocrdma1 hca_handle=1 hca_object=4\n",
	"hugetlb/cgroup.procs":                      "",
	"hugetlb/hugetlb.2MB.usage_in_bytes":        "2097152\n",
	"hugetlb/hugetlb.2MB.max_usage_in_bytes":    "4194304\n",
	"hugetlb/hugetlb.2MB.failcnt":               "1\n",
	"hugetlb/hugetlb.1GB.usage_in_bytes":        "0\n",
	"hugetlb/hugetlb.1GB.max_usage_in_bytes":    "0\n",
	"hugetlb/hugetlb.1GB.failcnt":               "0\n",
}

// cfq are the files that CFQ had.
var cfq = map[string]string{
	"blkio/blkio.sectors_recursive":          "8:16 8\n",
	"blkio/blkio.io_service_bytes_recursive": "8:16 Read 4096\n8:16 Total 4096\nTotal 4096\n",
	"blkio/blkio.io_serviced_recursive":      "8:16 Read 1\n254:0 Write 1\n8:16 Total 1\nTotal 1\n",
	"blkio/blkio.io_queued_recursive":        "8:16 Read 0\nTotal 0\n",
	"blkio/blkio.io_service_time_recursive":  "8:16 Read 3000\nTotal 3000\n",
	"blkio/blkio.io_wait_time_recursive":     "8:16 Read 200\nTotal 200\n",
	"blkio/blkio.io_merged_recursive":        "Total 0\n",
	"blkio/blkio.time_recursive":             "8:16 5\n",
}

// recorded2 are the files of a group on V2.
var recorded2 = map[string]string{
	"pids.current": "7\n", "pids.max": "max\n",
	"cpu.stat":     "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnice_usec 0\nnr_periods 3\nnr_throttled 2\nthrottled_usec 1\nnr_bursts 4\nburst_usec 5\n",
	"cpu.pressure": "some avg10=1.50 avg60=0.25 avg300=0.07 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
	"memory.stat": "anon 8388608\nfile 4096\nkernel 450560\nkernel_stack 16384\npagetables 57344\nsock 1\nshmem 2\nfile_mapped 3\nfile_dirty 4\nfile_writeback 5\n" +
		"swapcached 0\nanon_thp 2097152\ninactive_anon 6\nactive_anon 7\ninactive_file 8\nactive_file 9\nunevictable 10\nslab_reclaimable 11\nslab_unreclaimable 12\nslab 23\n" +
		"workingset_refault_anon 0\nworkingset_refault 13\nworkingset_activate 14\nworkingset_nodereclaim 15\npgscan 16\npgsteal 17\npgfault 18\npgmajfault 19\npgrefill 20\n" +
		"pgactivate 21\npgdeactivate 22\npglazyfree 24\npglazyfreed 25\nthp_fault_alloc 26\nthp_collapse_alloc 27\n",
	"memory.current": "9043968\n", "memory.max": "max\n", "memory.peak": "10043968\n",
	"memory.swap.current": "0\n", "memory.swap.max": "1048576\n", "memory.swap.peak": "4096\n",
	"memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=100.00 total=2\n",
	"memory.events":   "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\nsock_throttled 0\n",
	"io.stat":         "254:0 rbytes=4096 wbytes=1048576 rios=1 wios=2 dbytes=0 dios=0\n7:1 \n7:2\n8:0 rbytes=1 wbytes=2 rios=3 wios=4 cost.usage=5\n",
	"io.pressure":     "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=6\n",
	"rdma.current":    recorded1["rdma/rdma.current"], "rdma.max": recorded1["rdma/rdma.max"],
	"hugetlb.2MB.current": "2097152\n", "hugetlb.2MB.max": "max\n", "hugetlb.2MB.events": "max 3\n",
	"hugetlb.1GB.current": "0\n", "hugetlb.1GB.max": "1073741824\n", "hugetlb.1GB.events": "max 0\n",
}

// odd are what files hold that are cut off, garbage, huge or below zero.
var odd = []string{
	"", "\n", " ", "0", "max", "maximum\n", " 12 \n", "-1\n", "-0\n", "-\n", "+1\n", "1.5\n", "0x10\n", "1_000\n", "12 13\n", "garbage\n", "\x00\x00\n",
	"18446744073709551615\n", "18446744073709551616\n", "-9223372036854775809\n", "99999999999999999999999999999999999999\n",
	"1                               2\n", strings.Repeat("7", 5000),
	"user 1\n", "user 1\nsystem\n", "user 1\nsystem -5\n", "user 1\r\nsystem 2\r\n", "user 1\n\nsystem 2\n", "user\t1\nsystem   2 \nuser 3", "user 1 2\nsystem 2\n",
	"cache 1\nrss", "cache 18446744073709551616\n", "anon 1\nanon 2\nfile", "low 1\nmax 9223372036854775808\n", "max\nmax 3\n", "max x\nmax 3\n", "min 1\nmax 2",
	"8:0 Read 1", "8:0 Read -1\n", "8:0 Read\n", "8 0\n", "8:0 a b 5\n", "8:0:Read:5\n", "Total\n", "Total 1 2\n", "::8::0  Read 5\n", "8:0 Flush 5\r\n", "99999999999999999999:0 Read 1\n",
	"8:0 rbytes=1=2 wbytes rios=-1 wios=7\n8:x rbytes=1\n8:1 rbytes=5\n", "8:0:0 rbytes=1\n8:0\n8:0 \n  8:0 rbytes=1\n", "8:0 rbytes=5\twbytes=6\n",
	"some avg10=1.50\nsome avg60=2\n", "some avg10=x\n", "some avg10\n", "full total=-1\n", "full total=5 other=1\nnone avg10=x\n", "some avg10=1e400\n", "some avg10=NaN avg60=-0 avg300=inf\n",
	"a hca_handle=1\n", "a hca_handle=-1 hca_object=5000000000\nb hca_object=1 hca_handle\n", "a x=1 y=2 z=3\nb max max\n", "a hca_handle=1 hca_object=2\n\n\n",
}

// fake is a group whose directories are plain ones with these files; an absolute
// path is one outside.
func fake(t testing.TB, mode Mode, files map[string]string) *Group {
	t.Helper()
	root := t.TempDir()
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	paths := map[string]string{}
	for name, text := range files {
		controller, file, isV1 := strings.Cut(name, "/")
		switch {
		case isV1:
			paths[controller] = "/group"
			write(filepath.Join(root, controller, "group", file), text)
			if strings.HasPrefix(file, "memory.memsw") {
				write(filepath.Join(root, controller, file), text) // of the root group
			}
		case mode == V1:
			write(filepath.Join(root, name), text)
			old := partitions
			partitions = filepath.Join(root, name)
			t.Cleanup(func() { partitions = old })
		default:
			paths[""] = "/group"
			write(filepath.Join(root, "group", name), text)
		}
	}
	return restore(t, State{Mode: mode, Root: root, Paths: paths})
}

func mustAgree(t testing.TB, g *Group) {
	t.Helper()
	if err := agree(t, g); err != nil {
		t.Fatal(err)
	}
}

// agree compares what both read of a group that does not change.
func agree(t testing.TB, g *Group) error {
	t.Helper()
	theirs, theirErr := readTheirs(library(t, g))
	ours, err := g.Stat()
	switch {
	case errors.Is(theirErr, errPanic):
		return nil
	case (err != nil) != (theirErr != nil):
		return fmt.Errorf("%v, the library says %v", err, theirErr)
	case err == nil && !bytes.Equal(ours.Encoded, encode(t, theirs)):
		return fmt.Errorf("read are\n%s\nby the library\n%s", prototext.Format(decode(t, ours)), prototext.Format(theirs))
	}
	return nil
}

var errPanic = errors.New("it panics")

// readTheirs bears that the library's readers of V2 panic at an empty line.
func readTheirs(read func() (proto.Message, error)) (m proto.Message, err error) {
	defer func() {
		if r := recover(); r != nil {
			m, err = nil, fmt.Errorf("%w: %v", errPanic, r)
		}
	}()
	return read()
}

func with(files map[string]string, name, text string) map[string]string {
	changed := map[string]string{}
	for n, t := range files {
		changed[n] = t
	}
	changed[name] = text
	return changed
}

func without(files map[string]string, name string) map[string]string {
	changed := with(files, name, "")
	delete(changed, name)
	return changed
}

// first tells the files without which a controller is taken for gone.
func first(name string) bool {
	for _, c := range counted {
		if name == c.name+"/"+c.first {
			return true
		}
	}
	return false
}

func TestRecordedFilesAreReadAsTheLibraryDoes(t *testing.T) {
	old := map[string]string{}
	for name, text := range recorded1 {
		old[name] = text
	}
	for name, text := range cfq {
		old[name] = text
	}
	idle := map[string]string{}
	for name, text := range old {
		idle[name] = text
		if _, ok := cfq[name]; ok {
			idle[name] = ""
		}
	}
	for name, s := range map[string]struct {
		mode  Mode
		files map[string]string
	}{"v1": {V1, recorded1}, "v1 with CFQ": {V1, old}, "v1 with CFQ that has nothing": {V1, idle}, "v2": {V2, recorded2}} {
		t.Run(name, func(t *testing.T) {
			mustAgree(t, fake(t, s.mode, s.files))
			for controller, files := range byController(s.files) {
				if strings.Contains(name, "CFQ") && controller != "blkio" {
					continue // as without it
				}
				mustAgreeOnOdd(t, s.mode, files)
			}
		})
	}
}

// byController parts the files of a group. The library takes long for those that
// a test is not about.
func byController(files map[string]string) map[string]map[string]string {
	parts := map[string]map[string]string{}
	for file, text := range files {
		controller, _, isV1 := strings.Cut(file, "/")
		switch {
		case file == "partitions":
			controller = "blkio"
		case !isV1:
			controller, _, _ = strings.Cut(file, ".")
		}
		if parts[controller] == nil {
			parts[controller] = map[string]string{}
		}
		parts[controller][file] = text
	}
	return parts
}

// mustAgreeOnOdd has each file of a group cut off, with odd contents, and missing.
func mustAgreeOnOdd(t *testing.T, mode Mode, files map[string]string) {
	t.Helper()
	g := fake(t, mode, files)
	mustAgree(t, g)
	for file, text := range files {
		path := filepath.Join(g.root, "group", file)
		if controller, name, isV1 := strings.Cut(file, "/"); isV1 {
			path = filepath.Join(g.root, controller, "group", name)
		}
		if file == "partitions" {
			continue // the library does not bear what it cannot have
		}
		texts := []string{text[:len(text)/2], text + text}
		for i, changed := range odd {
			if !testing.Short() || i%8 == 0 {
				texts = append(texts, changed)
			}
		}
		if strings.Contains(file, ".memsw.") || strings.Contains(file, ".kmem.") {
			texts = texts[:min(len(texts), 6)] // as others of the controller
		}
		for _, changed := range texts {
			replace(t, path, changed)
			if err := agree(t, g); err != nil {
				t.Errorf("%s, %.40q: %v", file, changed, err)
			}
		}
		if !first(file) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			// The kernel has it in all groups or in none.
			top := filepath.Join(g.root, file)
			topErr := os.Remove(top)
			if err := agree(t, g); err != nil {
				t.Errorf("without %s: %v", file, err)
			}
			if topErr == nil {
				topErr = os.WriteFile(top, []byte(text), 0o600)
			}
			if topErr != nil && mode == V1 && strings.HasPrefix(filepath.Base(file), "memory.memsw") {
				t.Fatal(topErr)
			}
		}
		replace(t, path, text)
	}
}

// replace gives a file another content by making it anew: what is cut to nothing
// and written again is brought to the disk at once by ext4.
func replace(t testing.TB, path, text string) {
	t.Helper()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A controller whose first file is missing is being removed.
func TestHalfAControllerIsNoSample(t *testing.T) {
	for _, c := range counted {
		g := fake(t, V1, without(recorded1, c.name+"/"+c.first))
		_, err := g.Stat()
		if reads := c.name != "cpu" && c.name != "blkio" && c.name != "hugetlb"; reads != errdefs.IsNotFound(err) {
			t.Errorf("%s without %s: %v", c.name, c.first, err)
		}
	}
}

// The number of ticks times a billion, as the library has it, does not fit after
// six years of processor time.
func TestMuchProcessorTimeIsCounted(t *testing.T) {
	s, err := fake(t, V1, with(recorded1, "cpuacct/cpuacct.stat", "user 20000000000\nsystem 1\n")).Stat()
	if err != nil {
		t.Fatal(err)
	}
	if f := prototext.Format(decode(t, s)); !regexp.MustCompile(`user: *200000000000000000\b`).MatchString(f) {
		t.Error(f)
	}
}

// A file may be longer than the buffer that it is read to.
func TestLongFilesAreReadWhole(t *testing.T) {
	mustAgree(t, fake(t, V1, with(recorded1, "cpuacct/cpuacct.usage_percpu", strings.Repeat("123456789 ", 3000))))
	for _, size := range []int{bufferSize - 1, bufferSize, bufferSize + 1, 2 * bufferSize} {
		mustAgree(t, fake(t, V2, with(recorded2, "memory.stat", "anon 1\n"+strings.Repeat("a 1\n", size)[:size-7-7]+"\nfile 2")))
	}
	disks := "major minor  #blocks  name\n\n"
	for i := range 1000 {
		disks += fmt.Sprintf("   7 %8d 1024 loop%[1]d\n", i)
	}
	mustAgree(t, fake(t, V1, with(with(recorded1, "partitions", disks), "blkio/blkio.throttle.io_serviced", "7:999 Read 1\n7:3 Read 1\n7:1000 Read 1\n")))
}

// comparable tells texts for which the library's answer is one to have: it takes
// other spaces than the kernel's for such, counts no years of processor time, and
// has lines of 64 KiB at most.
func comparable(file, text string) bool {
	for _, c := range text {
		if c >= 0x80 {
			return false
		}
	}
	return len(text) < 60000 && (file != "cpuacct/cpuacct.stat" || !regexp.MustCompile(`\d{10}`).MatchString(text))
}

func FuzzFilesOfV1(f *testing.F) { fuzzFiles(f, V1, recorded1) }
func FuzzFilesOfV2(f *testing.F) { fuzzFiles(f, V2, recorded2) }

func fuzzFiles(f *testing.F, mode Mode, files map[string]string) {
	var names []string
	for name := range files {
		if name != "partitions" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for i, name := range names {
		f.Add(uint8(i), files[name])
	}
	g := fake(f, mode, files)
	f.Fuzz(func(t *testing.T, which uint8, text string) {
		name := names[int(which)%len(names)]
		path := filepath.Join(g.root, "group", name)
		if controller, file, isV1 := strings.Cut(name, "/"); isV1 {
			path = filepath.Join(g.root, controller, "group", file)
		}
		defer replace(t, path, files[name])
		replace(t, path, text)
		if !comparable(name, text) {
			g.Stat()
			return
		}
		mustAgree(t, g)
	})
}

func FuzzPartitions(f *testing.F) {
	f.Add(recorded1["partitions"], uint64(8), uint64(16))
	f.Fuzz(func(t *testing.T, text string, major, minor uint64) {
		if name := disk([]byte(text), major, minor); name != "" && !strings.HasPrefix(name, "/dev") {
			t.Errorf("%q", name)
		}
	})
}

func TestHugePageSizesAreInTheKernelsWords(t *testing.T) {
	got := hugePageSizes([]string{"hugepages-64kB", "hugepages-2048kB", "hugepages-1048576kB", "hugepages-16777216kB", "hugepages-", "hugepages-2MB", "other"})
	if want := "64KB 2MB 1GB 16GB"; strings.Join(got, " ") != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func BenchmarkStat(b *testing.B) {
	tr := newGroup(b)
	p := startIn(b, "sleep", true, tr.all()...)
	g := load(b, p.Process.Pid)
	read := library(b, g)
	for _, c := range []struct {
		name string
		stat func() error
	}{
		{"ours", func() error { _, err := g.Stat(); return err }},
		{"library", func() error { _, err := read(); return err }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := c.stat(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// In the root of a hierarchy there are no limits, by which a group is known to be
// there. An ordinary user's shim can be in it, with its containers.
func TestRootOfAHierarchyIsThere(t *testing.T) {
	root := t.TempDir()
	paths := map[string]string{}
	for file, text := range recorded1 {
		controller, name, isV1 := strings.Cut(file, "/")
		if !isV1 || name == "pids.max" || name == "rdma.max" {
			continue
		}
		paths[controller] = "/"
		if err := os.MkdirAll(filepath.Join(root, controller), 0o755); err != nil {
			t.Fatal(err)
		}
		replace(t, filepath.Join(root, file), text)
		replace(t, filepath.Join(root, controller, onlyOfRoots), "\n")
	}
	g := restore(t, State{Mode: V1, Root: root, Paths: paths})
	mustAgree(t, g)
	s, err := g.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if f := figuresOf(t, s); f.memory == 0 || f.cpu == 0 {
		t.Errorf("%+v", f)
	}
}
