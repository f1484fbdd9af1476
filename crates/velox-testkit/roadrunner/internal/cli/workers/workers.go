// Package workers asks a running server for its workers.
package workers

import (
	"fmt"
	"io"
	"net/rpc"

	"github.com/roadrunner-server/config/v5"
	goridge "github.com/roadrunner-server/goridge/v3/pkg/rpc"
	"github.com/roadrunner-server/informer/v5"
	rpcPlugin "github.com/roadrunner-server/rpc/v5"
)

// Run prints a line for each worker of the server that the configuration file names.
func Run(file string, overrides []string, out io.Writer) error {
	settings := config.Plugin{Path: file, Flags: overrides}
	if err := settings.Init(); err != nil {
		return err
	}
	var address rpcPlugin.Config
	if err := settings.UnmarshalKey(rpcPlugin.PluginName, &address); err != nil {
		return err
	}
	address.InitDefaults()
	connection, err := address.Dialer()
	if err != nil {
		return err
	}
	client := rpc.NewClientWithCodec(goridge.NewClientCodec(connection))
	defer func() { _ = client.Close() }()

	var services []string
	if err := client.Call("informer.List", true, &services); err != nil {
		return err
	}
	for _, service := range services {
		var found informer.WorkerList
		if err := client.Call("informer.Workers", service, &found); err != nil {
			return err
		}
		for _, worker := range found.Workers {
			fmt.Fprintf(out, "%s %d %s\n", service, worker.Pid, worker.StatusStr)
		}
	}
	return nil
}
