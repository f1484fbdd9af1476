package container

import (
	"github.com/roadrunner-server/fileserver/v5"
	"github.com/roadrunner-server/informer/v5"
	"github.com/roadrunner-server/logger/v5"
	"github.com/roadrunner-server/metrics/v5"
	"github.com/roadrunner-server/resetter/v5"
	"github.com/roadrunner-server/rpc/v5"
	"github.com/roadrunner-server/status/v5"
)

// Plugins are the parts of this server. A build of one's own replaces this file.
func Plugins() []any {
	return []any{
		&informer.Plugin{},
		&resetter.Plugin{},
		&logger.Plugin{},
		&rpc.Plugin{},
		&metrics.Plugin{},
		&status.Plugin{},
		&fileserver.Plugin{},
	}
}
