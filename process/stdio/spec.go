package stdio

import "time"

// Spec is what the client asked for: one URI for each stream, empty for none.
// The URIs are handed back to clients as they came.
type Spec struct {
	Stdin    string `json:",omitempty"`
	Stdout   string `json:",omitempty"`
	Stderr   string `json:",omitempty"`
	Terminal bool   `json:",omitempty"`
}

// Options of the streams of one process.
type Options struct {
	// Direct allows the process to be given the client's FIFOs themselves.
	Direct bool
	// Apart excepts stderr from that: until the process runs, it is the OCI
	// runtime that writes there, and what it says of a failure is not output of
	// the container.
	Apart bool
	// DrainFirst tells that the client asks for the end of the output (Drain)
	// before it stops reading it, as containerd's does for execs. Then the pipe
	// between process and shim is as large as the host allows, and Drain waits for
	// the client to have read all.
	DrainFirst bool
	// Listen makes sure that Said can tell what the launch writes to stderr, where
	// the client wants no stderr, too.
	Listen bool
	// UID and GID own the pipes that are made, so that the container's user
	// can open /dev/stdout anew.
	UID, GID int
	// Dir is a folder of the container's own, for the console's socket.
	Dir string
	// ContainerID and Namespace are what loggers are told.
	ContainerID, Namespace string
	// Ready bounds how long a logger may take to get ready; 0 means 10 seconds.
	Ready time.Duration
	// Grace is what a logger gets to end after its streams' end, and again
	// after SIGTERM; 0 means 10 seconds.
	Grace time.Duration
	// Logs says what is done with output that nobody takes.
	Logs Logs
	Log  func(format string, args ...any) `json:"-"`
}

// State tells, for inspection, how the streams are connected and what became of
// the output.
type State struct {
	Stdin  string `json:",omitempty"`
	Stdout string `json:",omitempty"`
	Stderr string `json:",omitempty"`
	// Width and Height of the terminal as last asked for.
	Width, Height uint16 `json:",omitempty"`
	StdinClosed   bool   `json:",omitempty"`
	// Gone tells that the process has been reaped, Closed that the streams are.
	Gone    bool          `json:",omitempty"`
	Closed  bool          `json:",omitempty"`
	Outputs []OutputState `json:",omitempty"`
	Loggers []LoggerState `json:",omitempty"`
}

// OutputState is a stream that passes through the shim.
type OutputState struct {
	Name string
	// Waiting bytes were taken from the process and not passed on yet.
	Waiting int64 `json:",omitempty"`
	// Dropped is what was taken from the process and will not be passed on.
	Dropped Loss `json:",omitzero"`
	// Failures counts the times that it could not be written, Failure is the
	// last.
	Failures int64  `json:",omitempty"`
	Failure  string `json:",omitempty"`
}

// LoggerState is a logging program.
type LoggerState struct {
	Program string
	PID     int // 0 while it does not run
	// Restarts counts how often it was started again.
	Restarts int `json:",omitempty"`
	// Dropped is how many bytes came while it did not run and could not wait.
	Dropped int64 `json:",omitempty"`
}
