package process

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/driver"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/cleatrun/cleat/process/stdio/size"
	"github.com/containerd/errdefs"
)

// Annotations are how a user sets something for one container: in its spec, or
// later by an update.
const (
	// OwnAnnotations is what all of ours begin with; one that does must be
	// known, all others are somebody else's.
	OwnAnnotations = "io.containerd.cleat."
	// drainAnnotation is Limits.Drain, a duration such as 2s.
	drainAnnotation = OwnAnnotations + "drain-limit"
	// stdioAnnotation is how the container's output gets to the client's FIFO:
	// stdioDirect, stdioCopy or, the default, stdioAuto.
	stdioAnnotation = OwnAnnotations + "stdio"
	// logsAnnotation is a stdio.Policy, logsLimitAnnotation a size such as 64m.
	logsAnnotation      = OwnAnnotations + "logs"
	logsLimitAnnotation = OwnAnnotations + "logs-limit"
)

// AnnotationNames are all annotations that are known, without their common beginning.
var AnnotationNames = []string{"drain-limit", "stdio", "logs", "logs-limit"}

const (
	// stdioAuto is stdioDirect for stdout where nothing is known to speak against
	// it, and stdioCopy for stderr.
	stdioAuto = "auto"
	// stdioDirect gives the FIFOs themselves to the init process.
	stdioDirect = "direct"
	// stdioCopy gives a pipe to it, out of which the shim passes bytes on.
	stdioCopy = "copy"
)

// annotate takes annotations of the container into account, over those it had.
func (c *Container) annotate(annotations map[string]string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	limits, own := c.limits, maps.Clone(c.annotations)
	if own == nil {
		own = map[string]string{}
	}
	for key, value := range annotations {
		if !strings.HasPrefix(key, OwnAnnotations) {
			continue
		}
		if name := strings.TrimPrefix(key, OwnAnnotations); c.allowed != nil && slices.Contains(AnnotationNames, name) && !slices.Contains(c.allowed, name) {
			return fmt.Errorf("annotation %s is not allowed by the configuration (its key annotations): %w", key, errdefs.ErrInvalidArgument)
		}
		switch key {
		case drainAnnotation:
			limit, err := time.ParseDuration(value)
			if err != nil || limit < 0 {
				return fmt.Errorf("annotation %s is %q, not a duration such as 2s: %w", key, value, errdefs.ErrInvalidArgument)
			}
			limits.Drain = limit
		case stdioAnnotation:
			modes := []string{stdioAuto, stdioDirect, stdioCopy}
			if !slices.Contains(modes, value) {
				return fmt.Errorf("annotation %s is %q, not one of %s: %w", key, value, strings.Join(modes, ", "), errdefs.ErrInvalidArgument)
			}
		case logsAnnotation:
		case logsLimitAnnotation:
			if _, err := size.Parse(value); err != nil {
				return fmt.Errorf("annotation %s: %w: %w", key, err, errdefs.ErrInvalidArgument)
			}
		default:
			return fmt.Errorf("annotation %s is not known, %s and these are: %s: %w", key, drainAnnotation, strings.Join(AnnotationNames[1:], ", "), errdefs.ErrInvalidArgument)
		}
		if key != drainAnnotation && c.init.state.State != Absent && own[key] != value {
			return fmt.Errorf("annotation %s cannot be changed once the container is created: %w", key, errdefs.ErrFailedPrecondition)
		}
		own[key] = value
	}
	logs := c.logs.with(own)
	if err := logs.Check(); err != nil {
		return fmt.Errorf("annotations %s and %s, or the configuration: %w", logsAnnotation, logsLimitAnnotation, err)
	}
	if own[stdioAnnotation] == stdioDirect && logs.Policy != "" && logs.Policy != stdio.Block {
		return fmt.Errorf("annotation %s is %q, so that the shim has no output to %s: %w", stdioAnnotation, stdioDirect, logs.Policy, errdefs.ErrInvalidArgument)
	}
	c.limits, c.annotations = limits, own
	return nil
}

// logs is what the configuration says of output that nobody takes.
type logs stdio.Logs

// with puts annotations over it. A limit is of the policy that it was said with.
func (l logs) with(annotations map[string]string) stdio.Logs {
	if policy, ok := annotations[logsAnnotation]; ok && stdio.Policy(policy) != l.Policy {
		l.Policy, l.Limit = stdio.Policy(policy), 0
	}
	if limit, ok := annotations[logsLimitAnnotation]; ok {
		l.Limit, _ = size.Parse(limit) // it was read before
	}
	return stdio.Logs(l)
}

// handOver tells whether the init process may be given the client's FIFOs
// themselves, and whether stderr's is excepted. A process that holds one cannot
// be checkpointed: CRIU finds no path to it in the container's mounts. So where
// CRIU is installed a pipe is handed over, which OCI runtimes know how to name to
// CRIU.
func (c *Container) handOver() (direct, apart bool) {
	c.mu.Lock()
	mode := c.annotations[stdioAnnotation]
	c.mu.Unlock()
	if mode == "" {
		mode = c.output
	}
	switch mode {
	case stdioDirect:
		return true, false
	case stdioCopy:
		return false, false
	}
	// Of a runtime that writes no log, all that it says may be why a create fails.
	return c.options.LogFormat != oci.NoLog && !driver.CanCheckpoint(), true
}
