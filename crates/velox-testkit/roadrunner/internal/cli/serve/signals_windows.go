package serve

import "os"

// Windows has no SIGTERM.
var stopSignals = []os.Signal{os.Interrupt}
