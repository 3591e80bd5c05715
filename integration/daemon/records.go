package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/cleatrun/cleat/integration/place"
)

// Leftovers tells, one line each, what is there of containers that should be
// gone: on the host (place.Leftovers) and in containerd's records: containers,
// tasks, snapshots and leases.
func (d *Daemon) Leftovers(ctx context.Context) []string {
	found := d.Place.Leftovers(d.PID())
	records, err := d.records(ctx)
	if err != nil {
		return append(found, fmt.Sprintf("(cannot ask containerd: %v)", err))
	}
	for _, record := range records {
		if !slices.Contains(d.baseline, record) {
			found = append(found, record)
		}
	}
	return found
}

// Settled is Leftovers once all that still was going on has ended, or after
// limit.
func (d *Daemon) Settled(ctx context.Context, limit time.Duration) []string {
	return place.Settled(limit, func() []string { return d.Leftovers(ctx) })
}

// remember takes the records of this moment as those that need no container.
func (d *Daemon) remember(ctx context.Context) (err error) {
	d.baseline, err = d.records(ctx)
	return err
}

// records lists what containerd has on record of the daemon's containers.
func (d *Daemon) records(ctx context.Context) ([]string, error) {
	client, err := d.Client()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(d.Context(ctx), readyTime)
	defer cancel()
	var list []string
	containers, err := client.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for _, c := range containers {
		list = append(list, "container "+c.ID)
	}
	running, err := client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	for _, t := range running.Tasks {
		list = append(list, fmt.Sprintf("task %s (%s)", t.ID, t.Status))
	}
	err = client.SnapshotService("").Walk(ctx, func(_ context.Context, s snapshots.Info) error {
		list = append(list, fmt.Sprintf("snapshot %s (%s)", s.Name, s.Kind))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	pods, err := client.SandboxStore().List(ctx)
	if err != nil && !errdefs.IsNotImplemented(err) { // as in 1.6
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	for _, s := range pods {
		list = append(list, "sandbox "+s.ID)
	}
	leases, err := client.LeasesService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	for _, l := range leases {
		list = append(list, "lease "+l.ID)
	}
	return list, nil
}
