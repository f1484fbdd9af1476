// Package serve runs the server.
package serve

import (
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/roadrunner-server/roadrunner/v2025/container"
	"github.com/roadrunner-server/roadrunner/v2025/internal/meta"
)

// Run serves until a plugin fails or a signal asks for the end.
func Run(file string, overrides []string, out io.Writer) error {
	all, err := container.New(file, meta.Version(), overrides)
	if err != nil {
		return err
	}
	failed, err := all.Serve()
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, stopSignals...)
	fmt.Fprintf(out, "[INFO] RoadRunner server started; version: %s, buildtime: %s\n", meta.Version(), meta.BuildTime())

	select {
	case failure := <-failed:
		_ = all.Stop()
		return fmt.Errorf("plugin %s: %w", failure.VertexID, failure.Error)
	case <-stop:
		return all.Stop()
	}
}
