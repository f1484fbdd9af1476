package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What the reader needs of endure and RoadRunner's errors.
var modules = map[string]string{
	"go.mod": `module example.com/rr
go 1.22
require (
	github.com/roadrunner-server/endure/v2 v2.0.0
	github.com/roadrunner-server/errors v1.0.0
	example.com/plugins v1.0.0
)
replace (
	github.com/roadrunner-server/endure/v2 => ./endure
	github.com/roadrunner-server/errors => ./errors
	example.com/plugins => ./plugins
)
`,
	"endure/go.mod": "module github.com/roadrunner-server/endure/v2\ngo 1.22\n",
	"endure/endure.go": `package endure
type Endure struct{}
func (*Endure) RegisterAll(plugins ...any) error { return nil }
`,
	"endure/dep/dep.go": `package dep
type In struct{}
type Out struct{}
func Fits(callback func(any), tp any) *In { return nil }
func Bind(tp any, method any) *Out { return nil }
`,
	"errors/go.mod":    "module github.com/roadrunner-server/errors\ngo 1.22\n",
	"errors/errors.go": "package errors\ntype Kind uint8\nconst Disabled Kind = 1\nfunc E(args ...any) error { return nil }\n",
	"plugins/go.mod":   "module example.com/plugins\ngo 1.22\nrequire (\n\tgithub.com/roadrunner-server/endure/v2 v2.0.0\n\tgithub.com/roadrunner-server/errors v1.0.0\n)\n",
	"plugins/config/config.go": `package config
type Plugin struct{}
func (*Plugin) Init() error { return nil }
func (*Plugin) Name() string { return "config" }
func (*Plugin) Has(name string) bool { return false }
func (*Plugin) UnmarshalKey(name string, out any) error { return nil }
`,
	"container/plugins.go": `package container
import (
	"example.com/plugins/config"
IMPORTS
	"github.com/roadrunner-server/endure/v2"
)
func Plugins() []any { return []any{
LIST
} }
func New() error {
	parts := append(Plugins(), &config.Plugin{})
	all := &endure.Endure{}
	return all.RegisterAll(parts...)
}
`,
	"cmd/rr/main.go": "package main\nimport \"example.com/rr/container\"\nfunc main() { _ = container.New() }\n",
}

const configurer = `
type Configurer interface {
	Has(name string) bool
	UnmarshalKey(name string, out any) error
}
`

const named = `
type Plugin struct{}
func (*Plugin) Init() error { return nil }
func (*Plugin) Name() string { return "NAME" }
`

// graphOf reads a server with these plugins: package name to source.
func graphOf(t *testing.T, plugins map[string]string) map[string]*PluginNode {
	t.Helper()
	directory := t.TempDir()
	files, registered := map[string]string{}, 0
	for name, text := range modules {
		files[name] = text
	}
	var imports, list strings.Builder
	for name, source := range plugins {
		// A further file of a plugin.
		if strings.HasSuffix(name, ".go") {
			files["plugins/"+name] = source
			continue
		}
		files["plugins/"+name+"/plugin.go"] = "package " + filepath.Base(name) + "\n" + strings.ReplaceAll(source, "NAME", name)
		// A package of another plugin is not registered.
		if !strings.Contains(name, "/") {
			registered++
			imports.WriteString("\t\"example.com/plugins/" + name + "\"\n")
			list.WriteString("\t&" + name + ".Plugin{},\n")
		}
	}
	for name, text := range files {
		text = strings.NewReplacer("IMPORTS", imports.String(), "LIST", list.String()).Replace(text)
		path := filepath.Join(directory, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command("go", "list", "-e", "-mod=mod", "-export", "-deps", "-json", "./cmd/rr")
	command.Dir = directory
	command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "GOPROXY=off", "GO111MODULE=on")
	listed, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(directory, "list.json")
	if err := os.WriteFile(path, listed, 0o644); err != nil {
		t.Fatal(err)
	}
	graph, err := read(path)
	if err != nil {
		t.Fatal(err)
	}
	nodes := map[string]*PluginNode{}
	for _, p := range graph.Plugins {
		nodes[p.Package[strings.LastIndex(p.Package, "/")+1:]] = p
		for _, need := range append(append([]Need{}, p.Init...), p.Collects...) {
			for _, implementer := range need.Implementers {
				if implementer.Plugin >= len(graph.Plugins) {
					t.Fatalf("%s: no plugin %d", p.Package, implementer.Plugin)
				}
			}
		}
	}
	if len(graph.Plugins) != registered+1 {
		t.Fatalf("%d plugins, unknown: %q", len(graph.Plugins), graph.Unknown)
	}
	return nodes
}

// same compares a value with JSON.
func same(t *testing.T, what string, value any, want string) {
	t.Helper()
	got, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s: got %s, want %s", what, got, want)
	}
}

func TestInterfacesDecideWhoImplementsWhat(t *testing.T) {
	nodes := graphOf(t, map[string]string{
		"logger": `import "github.com/roadrunner-server/endure/v2/dep"
type Log interface { Print(string) }
type log struct{}
func (log) Print(string) {}
func (*Plugin) ServiceLog() Log { return log{} }
func (*Plugin) Weight() uint { return 7 }
func (p *Plugin) Provides() []*dep.Out { return []*dep.Out{dep.Bind((*Log)(nil), p.ServiceLog)} }
` + named,
		"direct": "func (*Plugin) Print(string) {}\n" + named,
		"user": `import "github.com/roadrunner-server/endure/v2/dep"
type Printer interface { Print(string) }
type Missing interface { Nobody() }
type Plugin struct{}
func (*Plugin) Init(Printer, Missing) error { return nil }
func (*Plugin) Collects() []*dep.In { return []*dep.In{dep.Fits(func(any) {}, (*Printer)(nil))} }
`,
	})
	user := nodes["user"]
	implementers := func(need Need) string {
		var found []string
		for _, i := range need.Implementers {
			found = append(found, i.Method)
		}
		return strings.Join(found, ",")
	}
	// The heavier one first; the other implements it without a method.
	if got := implementers(user.Init[0]); got != "ServiceLog," {
		t.Errorf("implementers by %q", got)
	}
	same(t, "missing", user.Init[1], `{"type":"Missing","methods":["Nobody"],"implementers":[]}`)
	if len(user.Collects) != 1 || len(user.Collects[0].Implementers) != 2 {
		t.Errorf("collects %+v", user.Collects)
	}
	same(t, "methods", user.Methods, `["Collects","Init"]`)
	same(t, "name", user.Name, "null")
	same(t, "weight", nodes["logger"].Weight, "7")
	same(t, "name", nodes["logger"].Name, `"logger"`)
	same(t, "provides", nodes["logger"].Provides, `[{"type":"Log","method":"ServiceLog"}]`)
}

func TestSectionsAreReadFromConstants(t *testing.T) {
	nodes := graphOf(t, map[string]string{
		"static": `import (
	"fmt"
	"github.com/roadrunner-server/errors"
	"example.com/plugins/static/driver"
)
const name = "static"
` + configurer + `
type Plugin struct{ cfg struct{ On bool } }
func (p *Plugin) Init(cfg Configurer) error {
	if !cfg.Has("http") || !cfg.Has(fmt.Sprintf("%s.%s", "http", name)) {
		return errors.E(errors.Disabled)
	}
	if err := p.read(cfg); err != nil {
		return err
	}
	if !p.cfg.On {
		return errors.E(errors.Disabled)
	}
	driver.New(cfg, "x")
	return nil
}
func (p *Plugin) read(cfg Configurer) error {
	key := "http." + name
	return cfg.UnmarshalKey(key, &p.cfg)
}
`,
		"static/driver": "\n" + configurer + `
func New(cfg Configurer, key string) { _ = cfg.UnmarshalKey(key, nil); _ = cfg.Has("pool") }
` + named,
	})
	static := nodes["static"]
	same(t, "sections", static.Sections, `["http","http.static","pool"]`)
	same(t, "disabled", static.DisabledWhen,
		`[{"any":[{"not":{"has":"http"}},{"not":{"has":"http.static"}}]},`+
			`{"all":[{"not":{"any":[{"not":{"has":"http"}},{"not":{"has":"http.static"}}]}},{"not":{"unknown":"p.cfg.On"}}]}]`)
	if len(static.Unknown) != 1 || static.Unknown[0].What != "section" || static.Unknown[0].Text != "cfg.UnmarshalKey(key, nil)" {
		t.Errorf("unknown %+v", static.Unknown)
	}
}

func TestWhatTheSourceDoesNotSayIsUnknown(t *testing.T) {
	nodes := graphOf(t, map[string]string{
		"computed": `import (
	"os"
	"github.com/roadrunner-server/endure/v2/dep"
)
type I interface{ M() }
type Plugin struct{}
func (*Plugin) Init() error { return nil }
func (*Plugin) Name() string { return os.Getenv("NAME") }
func (*Plugin) Weight() uint { return uint(os.Getpid()) }
func (*Plugin) Provides() []*dep.Out { var out []*dep.Out; out = append(out, dep.Bind((*I)(nil), nil)); return out }
`,
		"broken":         "type Plugin struct{}\nfunc (*Plugin) Init() error { return missing }\nfunc (*Plugin) Name() string { return \"broken\" }\n",
		"hidden":         "type Plugin struct{}\n",
		"tagged":         "type Plugin struct{}\n",
		"tagged/init.go": "//go:build never\n\npackage tagged\n\nfunc (*Plugin) Init() error { return nil }\n",
		"struct_":        "type S struct{}\ntype Plugin struct{}\nfunc (*Plugin) Init(S) error { return nil }\n",
	})
	what := func(p *PluginNode) string {
		var found []string
		for _, unknown := range p.Unknown {
			found = append(found, unknown.What)
		}
		return strings.Join(found, ",")
	}
	if got := what(nodes["computed"]); got != "name,weight,provides" {
		t.Errorf("computed: %s", got)
	}
	if broken := nodes["broken"]; what(broken) != "types" || !strings.Contains(broken.Unknown[0].Text, "missing") {
		t.Errorf("broken: %+v", broken.Unknown)
	}
	same(t, "broken", nodes["broken"].Name, `"broken"`)
	same(t, "hidden", nodes["hidden"].Invalid, `"it has no method Init"`)
	same(t, "tagged", nodes["tagged"].Invalid, `"it has no method Init: a build constraint excludes init.go"`)
	same(t, "struct", nodes["struct_"].Invalid, `"parameter S of its Init is not an interface"`)
}
