package ttrpcserver

// Each benchmark runs against this server and against ttrpc's own.

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// bothServers runs a benchmark on each.
func bothServers(b *testing.B, bench func(b *testing.B, path string)) {
	b.Run("server=ours", func(b *testing.B) {
		_, path := start(b, Options{}, nil)
		bench(b, path)
	})
	b.Run("server=ttrpc", func(b *testing.B) { bench(b, startTheirs(b)) })
}

// One request after the other by frames: what is measured is the server, and
// the kernel.
func BenchmarkRequest(b *testing.B) {
	for _, size := range []int{10, 1000, 100_000} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			bothServers(b, func(b *testing.B, path string) {
				w := dial(b, path)
				request := requestOf(0, "Echo", strings.Repeat("x", size))
				w.send(requestOf(1, "Echo", strings.Repeat("x", size)))
				first, err := w.readFrame()
				if err != nil {
					b.Fatal(err)
				}
				answer := make([]byte, len(first))
				id := uint32(1)
				b.ReportAllocs()
				for b.Loop() {
					id += 2
					request[4], request[5], request[6], request[7] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
					if _, err := w.Write(request); err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadFull(w.in, answer); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// Many goroutines share ttrpc's client, as in containerd.
func BenchmarkManyRequestsAtOnce(b *testing.B) {
	bothServers(b, func(b *testing.B, path string) {
		client := connectClient(b, path)
		b.ReportAllocs()
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			var out wrapperspb.StringValue
			for pb.Next() {
				if err := client.Call(context.Background(), testService, "Echo", wrapperspb.String("text"), &out); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

// What the process pays for a connection that does nothing, and for a request
// that waits. The clients are bare sockets, which cost it nothing.
func BenchmarkMemory(b *testing.B) {
	b.Run("idle-connection", func(b *testing.B) {
		bothServers(b, func(b *testing.B, path string) {
			frame, answer := requestOf(1, "Echo", "one request before"), make([]byte, 1000)
			fds := make([]int, thousand)
			costOfEach(b, func() {
				for i := range fds {
					fds[i] = dialBare(b, path)
					exchangeBare(b, fds[i], frame, answer)
				}
			}, func() {
				for _, fd := range fds {
					unix.Close(fd)
				}
			})
		})
	})
	b.Run("waiting-request", func(b *testing.B) {
		bothServers(b, func(b *testing.B, path string) {
			w := dial(b, path)
			id := uint32(1)
			send := func(method string) {
				id += 2
				w.send(requestOf(id, method, "a container's id and no more"))
			}
			costOfEach(b, func() {
				for range thousand {
					send("Hold")
				}
				send("Echo") // when it is answered all have been taken
				w.receive()
			}, func() {
				for range thousand {
					send("Release")
					w.receive()
					w.receive()
				}
			})
		})
	})
}

const thousand = 1000

// costOfEach measures what the process has in use for a thousand of something.
func costOfEach(b *testing.B, prepare, undo func()) {
	used := func() (heap, stack float64) {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc), float64(m.StackInuse)
	}
	for b.Loop() {
		heap, stack := used()
		goroutines := runtime.NumGoroutine()
		prepare()
		moreHeap, moreStack := used()
		b.ReportMetric((moreHeap-heap)/thousand, "heap-B/each")
		b.ReportMetric((moreStack-stack)/thousand, "stack-B/each")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/thousand, "goroutines/each")
		undo()
		eventually(b, "it is undone", func() bool { return runtime.NumGoroutine() <= goroutines })
	}
}

func dialBare(b *testing.B, path string) int {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		b.Fatal(err)
	}
	return fd
}

func exchangeBare(b *testing.B, fd int, frame, answer []byte) {
	if _, err := unix.Write(fd, frame); err != nil {
		b.Fatal(err)
	}
	if _, err := unix.Read(fd, answer); err != nil {
		b.Fatal(err)
	}
}
