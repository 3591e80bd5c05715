package cgroup

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// hugePages are the sizes of huge pages that this kernel knows, as the names of
// files in cgroups have them ("2MB"): in the order of their directory, in which
// the library has them on V2, and of their names, in which it has them on V1.
var hugePages = sync.OnceValue(func() (sizes struct{ listed, sorted []string }) {
	dir, err := os.Open("/sys/kernel/mm/hugepages")
	if err != nil {
		return sizes // a kernel without huge pages
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(0)
	sizes.listed = hugePageSizes(names)
	slices.Sort(names)
	sizes.sorted = hugePageSizes(names)
	return sizes
})

// hugePageSizes are those of directories of /sys/kernel/mm/hugepages
// ("hugepages-2048kB"), in the words of the kernel's mm/hugetlb_cgroup.c.
func hugePageSizes(names []string) (sizes []string) {
	for _, name := range names {
		size, isSize := strings.CutPrefix(name, "hugepages-")
		size, inKB := strings.CutSuffix(size, "kB")
		kb, err := strconv.ParseUint(size, 10, 64)
		switch {
		case !isSize || !inKB || err != nil:
		case kb >= 1<<20:
			sizes = append(sizes, strconv.FormatUint(kb>>20, 10)+"GB")
		case kb >= 1<<10:
			sizes = append(sizes, strconv.FormatUint(kb>>10, 10)+"MB")
		default:
			sizes = append(sizes, strconv.FormatUint(kb, 10)+"KB")
		}
	}
	return sizes
}
