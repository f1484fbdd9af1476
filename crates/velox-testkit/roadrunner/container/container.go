// Package container holds the server's plugins together.
package container

import (
	"log/slog"
	"time"

	"github.com/roadrunner-server/config/v5"
	"github.com/roadrunner-server/endure/v2"
)

// gracePeriod is how long plugins have to stop.
const gracePeriod = 10 * time.Second

// New is a container with all plugins and the configuration file at path.
func New(path, version string, overrides []string) (*endure.Endure, error) {
	parts := append(Plugins(), &config.Plugin{
		Path:    path,
		Flags:   overrides,
		Timeout: gracePeriod,
		Version: version,
	})
	all := endure.New(slog.LevelError, endure.GracefulShutdownTimeout(gracePeriod))
	if err := all.RegisterAll(parts...); err != nil {
		return nil, err
	}
	return all, all.Init()
}
