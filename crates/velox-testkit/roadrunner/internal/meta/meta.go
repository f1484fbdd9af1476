// Package meta says which build of the server this is. The linker sets its variables (-X).
package meta

import "strings"

var (
	version   = "local"
	buildTime = "development"
)

// Version is the server's version without the tag's "v".
func Version() string {
	if rest, found := strings.CutPrefix(version, "v"); found && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
		return rest
	}
	return version
}

// BuildTime is the time that this build was stamped with.
func BuildTime() string { return buildTime }
