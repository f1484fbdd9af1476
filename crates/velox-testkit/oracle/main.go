// Command oracle runs operations of golang.org/x/mod, for the tests of velox-gomod and velox-fetch.
//
// It reads one JSON object per line, {"op": "semver.compare", "args": ["v1.0.0", "v1.1.0"]}, and replies with one
// line: {"value": …} or {"error": "…"}.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

type question struct {
	Op   string   `json:"op"`
	Args []string `json:"args"`
}

type answer struct {
	Value any    `json:"value"`
	Error string `json:"error,omitempty"`
}

// operations is filled by the other files of this package.
var operations = map[string]func(args []string) (any, error){}

func ask(q question) (a answer) {
	defer func() {
		if p := recover(); p != nil {
			a = answer{Error: fmt.Sprint("panic: ", p)}
		}
	}()
	op, known := operations[q.Op]
	if !known {
		return answer{Error: "unknown operation " + q.Op}
	}
	value, err := op(q.Args)
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Value: value}
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 64<<20)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var q question
		if err := json.Unmarshal(in.Bytes(), &q); err != nil {
			fmt.Fprintln(os.Stderr, "oracle:", err)
			os.Exit(1)
		}
		if err := out.Encode(ask(q)); err != nil {
			os.Exit(1)
		}
	}
}
