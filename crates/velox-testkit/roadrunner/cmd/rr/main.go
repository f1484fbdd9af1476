// Command rr is a small server with RoadRunner's layout: what velox-testkit's tests and demo build instead of the real one.
package main

import (
	"fmt"
	"os"

	"github.com/roadrunner-server/roadrunner/v2025/internal/cli"
)

func main() {
	if err := cli.Run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
