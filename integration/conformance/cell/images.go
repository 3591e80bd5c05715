package cell

import (
	"io/fs"

	"github.com/cleatrun/cleat/integration/image"
)

// extras are files that suites expect of the images that they name: well-known
// users, a shell by its long name, a program that runs as its owner, an nc that
// SIGTERM ends even where it is process 1. The name in a file makes each image
// a different one.
func extras(name string) []image.File {
	const users = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
backup:x:34:34:backup:/var/backups:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
`
	const groups = `root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
mail:x:8:
www-data:x:33:
backup:x:34:
operator:x:37:
users:x:100:
nobody:x:65534:
`
	const nc = `#!/bin/sh
trap 'exit 143' TERM
/bin/busybox nc "$@" &
wait $!
`
	return []image.File{
		{Name: "etc/passwd", Mode: 0o644, Content: []byte(users)},
		{Name: "etc/group", Mode: 0o644, Content: []byte(groups)},
		{Name: "etc/image", Mode: 0o644, Content: []byte(name + "\n")},
		{Name: "bin/bash", Mode: 0o755, Content: []byte("#!/bin/sh\nexec /bin/sh \"$@\"\n")},
		{Name: "bin/nc", Mode: 0o755, Content: []byte(nc)},
		{Name: "usr", Mode: fs.ModeDir | 0o755},
		{Name: "usr/bin", Mode: fs.ModeDir | 0o755},
		{Name: "usr/bin/passwd", Mode: fs.ModeSetuid | 0o755, Content: []byte("#!/bin/sh\n")},
	}
}
