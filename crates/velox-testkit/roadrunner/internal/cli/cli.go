// Package cli reads the command line.
package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/roadrunner-server/roadrunner/v2025/internal/cli/serve"
	"github.com/roadrunner-server/roadrunner/v2025/internal/cli/workers"
	"github.com/roadrunner-server/roadrunner/v2025/internal/meta"
)

const usage = "usage: rr serve|workers [-c .rr.yaml] [-w DIR] [-o key=value]..., or rr --version"

type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// Run does what the arguments ask for and writes its answer to out.
func Run(arguments []string, out io.Writer) error {
	if len(arguments) == 0 {
		return errors.New(usage)
	}
	switch arguments[0] {
	case "--version", "-v":
		_, err := fmt.Fprintf(out, "rr version %s (build time: %s, %s), OS: %s, arch: %s\n",
			meta.Version(), meta.BuildTime(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return err
	case "--help", "-h":
		_, err := fmt.Fprintln(out, usage)
		return err
	}

	var overrides list
	flags := flag.NewFlagSet(arguments[0], flag.ContinueOnError)
	path := flags.String("c", ".rr.yaml", "configuration file")
	directory := flags.String("w", "", "working directory")
	flags.Var(&overrides, "o", "override of a configuration value, as key=value")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	file, err := filepath.Abs(*path)
	if err != nil {
		return err
	}
	// Paths in a configuration file are relative to it.
	if *directory == "" {
		*directory = filepath.Dir(file)
	}
	if err := os.Chdir(*directory); err != nil {
		return err
	}

	switch arguments[0] {
	case "serve":
		return serve.Run(file, overrides, out)
	case "workers":
		return workers.Run(file, overrides, out)
	default:
		return fmt.Errorf("there is no command %q\n%s", arguments[0], usage)
	}
}
