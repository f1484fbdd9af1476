// The reader of a server's plugin graph. It type-checks the plugins of a RoadRunner workspace, and prints as
// JSON what endure, RoadRunner's container, would find in them by reflection. No code of a plugin runs.
//
//	go list -e -export -deps -json=… ./cmd/rr > LIST
//	go run reader.go LIST
//
// What the source doesn't say in constants is reported as unknown.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/scanner"
	"go/token"
	"go/types"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
)

// PluginGraph is what is printed.
type PluginGraph struct {
	Plugins []*PluginNode `json:"plugins"`
	// Sections that RoadRunner reads itself.
	Sections []string `json:"sections"`
	// What can't be read, one line each.
	Unknown []string `json:"unknown"`
}

// PluginNode is a value that RoadRunner registers with endure.
type PluginNode struct {
	Package string `json:"package"`
	Type    string `json:"type"`
	// As reflection prints the type, such as `*http.Plugin`.
	GoType string  `json:"go_type"`
	Module string  `json:"module"`
	Name   *string `json:"name"`
	Weight *uint64 `json:"weight"`
	// Whether plugins read the configuration file through it.
	IsConfiguration bool       `json:"is_configuration"`
	Init            []Need     `json:"init"`
	Provides        []Provided `json:"provides"`
	Collects        []Need     `json:"collects"`
	// The names of its exported methods.
	Methods []string `json:"methods"`
	// Full keys, such as `http.static`.
	Sections []string `json:"sections"`
	// When Init returns errors.Disabled, if nothing else fails.
	DisabledWhen []Condition `json:"disabled_when"`
	// What can't be read.
	Unknown []Unknown `json:"unknown"`
	// Why endure refuses to start with this plugin.
	Invalid *string `json:"invalid"`

	pointer  types.Type
	provided []types.Type
}

// Need is an interface that a plugin gets others through.
type Need struct {
	Type string `json:"type"`
	// The names of its methods.
	Methods []string `json:"methods"`
	// In order of preference: by weight.
	Implementers []Implementer `json:"implementers"`
}

// Implementer is a plugin with a type that implements an interface.
type Implementer struct {
	// Index in the list of plugins.
	Plugin int `json:"plugin"`
	// The method that returns the value; empty for the plugin itself.
	Method string `json:"method"`
}

// Provided is a type that a plugin provides through a method.
type Provided struct {
	Type   string `json:"type"`
	Method string `json:"method"`
}

// Unknown is a fact that the source doesn't state.
type Unknown struct {
	// `types`, `init`, `provides`, `collects`, `name`, `weight`, `section` or `disabled`
	What  string `json:"what"`
	Where string `json:"where"`
	Text  string `json:"text"`
}

// Condition has one field.
type Condition struct {
	Has     string      `json:"has,omitempty"`
	Not     *Condition  `json:"not,omitempty"`
	All     []Condition `json:"all,omitempty"`
	Any     []Condition `json:"any,omitempty"`
	Is      *bool       `json:"is,omitempty"`
	Unknown string      `json:"unknown,omitempty"`
}

// listedPackage is a package of `go list`.
type listedPackage struct {
	ImportPath string
	Dir        string
	Export     string
	GoFiles    []string
	CgoFiles   []string
	// Those that build constraints exclude.
	IgnoredGoFiles []string
	Imports        []string
	ImportMap      map[string]string
	Module         *struct {
		Path string
		Main bool
	}
	Standard bool
	Error    *struct{ Err string }

	files    []*ast.File
	checked  *types.Package
	info     *types.Info
	problems []error
}

func (p *listedPackage) module() string {
	if p == nil || p.Module == nil {
		return ""
	}
	return p.Module.Path
}

func (p *listedPackage) isMain() bool { return p.Module != nil && p.Module.Main }

// method is a declared function with its package.
type method struct {
	declaration *ast.FuncDecl
	in          *listedPackage
}

// listedCall is a call of dep.Bind or dep.Fits.
type listedCall struct {
	*ast.CallExpr
	in *listedPackage
}

type reader struct {
	fset      *token.FileSet
	ordered   []*listedPackage
	packages  map[string]*listedPackage
	exports   types.Importer
	functions map[*types.Func]method
	// The types of plugins through which others read the configuration file.
	configurations []types.Type
	graph          PluginGraph
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: reader LIST")
		os.Exit(2)
	}
	graph, err := read(os.Args[1])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(graph)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(list string) (*PluginGraph, error) {
	r := &reader{
		fset:      token.NewFileSet(),
		packages:  map[string]*listedPackage{},
		functions: map[*types.Func]method{},
		graph:     PluginGraph{Plugins: []*PluginNode{}, Sections: []string{}, Unknown: []string{}},
	}
	if err := r.list(list); err != nil {
		return nil, err
	}
	r.exports = importer.ForCompiler(r.fset, "gc", func(path string) (io.ReadCloser, error) {
		p := r.packages[path]
		if p == nil || p.Export == "" {
			return nil, fmt.Errorf("package %s was not compiled", path)
		}
		return os.Open(p.Export)
	})
	r.check(r.sources())
	r.register()
	for _, p := range r.graph.Plugins {
		r.describe(p)
	}
	for _, p := range r.graph.Plugins {
		r.connect(p)
	}
	r.graph.Sections = r.sections(func(p *listedPackage) bool { return p.isMain() }, nil)
	return &r.graph, nil
}

// list reads the packages, dependencies first.
func (r *reader) list(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	decoder := json.NewDecoder(file)
	for {
		p := new(listedPackage)
		if err := decoder.Decode(p); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		r.ordered = append(r.ordered, p)
		r.packages[p.ImportPath] = p
	}
}

var initMethod = regexp.MustCompile(`(?m)^func \([^)]*\) Init\(`)

// initFile is the file with a method Init.
func (p *listedPackage) initFile(files []string) string {
	for _, name := range files {
		if text, err := os.ReadFile(filepath.Join(p.Dir, name)); err == nil && initMethod.Match(text) {
			return name
		}
	}
	return ""
}

// sources are the packages to read from source: RoadRunner's own, and those of modules with a package that
// RoadRunner imports and that has a method Init. A package that imports one of these is read from source as
// well: types of a package read in two ways would differ.
func (r *reader) sources() []*listedPackage {
	imported := map[string]bool{}
	for _, p := range r.ordered {
		if p.isMain() {
			for _, path := range p.Imports {
				imported[path] = true
			}
		}
	}
	modules := map[string]bool{}
	for path := range imported {
		p := r.packages[path]
		if p == nil || p.Standard || p.Module == nil {
			continue
		}
		if p.initFile(p.GoFiles) != "" || p.initFile(p.IgnoredGoFiles) != "" {
			modules[p.Module.Path] = true
		}
	}
	chosen := map[string]bool{}
	var sources []*listedPackage
	for _, p := range r.ordered {
		wanted := !p.Standard && (p.isMain() || modules[p.module()])
		for _, path := range p.Imports {
			wanted = wanted || chosen[path]
		}
		if wanted {
			chosen[p.ImportPath] = true
			sources = append(sources, p)
		}
	}
	return sources
}

func (r *reader) check(sources []*listedPackage) {
	var parsing sync.WaitGroup
	for _, p := range sources {
		parsing.Add(1)
		go func(p *listedPackage) {
			defer parsing.Done()
			for _, name := range append(append([]string{}, p.GoFiles...), p.CgoFiles...) {
				file, err := parser.ParseFile(r.fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
				if err != nil {
					p.problems = append(p.problems, err)
				}
				if file != nil {
					p.files = append(p.files, file)
				}
			}
		}(p)
	}
	parsing.Wait()
	for _, p := range sources {
		p.info = &types.Info{
			Types:      map[ast.Expr]types.TypeAndValue{},
			Defs:       map[*ast.Ident]types.Object{},
			Uses:       map[*ast.Ident]types.Object{},
			Selections: map[*ast.SelectorExpr]*types.Selection{},
		}
		configuration := types.Config{
			Importer:    packageImporter{r, p},
			FakeImportC: true,
			Error:       func(err error) { p.problems = append(p.problems, err) },
		}
		p.checked, _ = configuration.Check(p.ImportPath, r.fset, p.files, p.info)
		// It repeats the errors of the type checker.
		if p.Error != nil {
			p.problems = append(p.problems, errors.New(p.Error.Err))
		}
		for _, file := range p.files {
			for _, declaration := range file.Decls {
				if declaration, ok := declaration.(*ast.FuncDecl); ok {
					if function, ok := p.info.Defs[declaration.Name].(*types.Func); ok {
						r.functions[function] = method{declaration, p}
					}
				}
			}
		}
	}
}

type packageImporter struct {
	*reader
	from *listedPackage
}

func (i packageImporter) Import(path string) (*types.Package, error) {
	if mapped, ok := i.from.ImportMap[path]; ok {
		path = mapped
	}
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	if p := i.packages[path]; p != nil && p.checked != nil {
		return p.checked, nil
	}
	return i.exports.Import(path)
}

// register finds what RoadRunner registers with endure.
func (r *reader) register() {
	seen := map[string]bool{}
	for _, p := range r.ordered {
		if !p.isMain() || p.checked == nil {
			continue
		}
		for _, file := range p.files {
			for _, declaration := range file.Decls {
				function, ok := declaration.(*ast.FuncDecl)
				if !ok || function.Body == nil {
					continue
				}
				ast.Inspect(function.Body, func(node ast.Node) bool {
					call, ok := node.(*ast.CallExpr)
					if !ok {
						return true
					}
					called := callee(p.info, call)
					if called == nil || !isIn(called, "github.com/roadrunner-server/endure") ||
						(called.Name() != "RegisterAll" && called.Name() != "Register") {
						return true
					}
					for _, argument := range call.Args {
						for _, t := range r.values(p, function, argument, 0) {
							if key := types.TypeString(t, nil); !seen[key] {
								seen[key] = true
								r.add(t)
							}
						}
					}
					return true
				})
			}
		}
	}
	if len(r.graph.Plugins) == 0 {
		r.unknown("RoadRunner's own source has no call of endure's RegisterAll")
	}
}

func (r *reader) unknown(format string, arguments ...any) {
	r.graph.Unknown = append(r.graph.Unknown, fmt.Sprintf(format, arguments...))
}

func (r *reader) add(t types.Type) {
	pointer, ok := types.Unalias(t).(*types.Pointer)
	if !ok {
		r.unknown("endure refuses %s: only pointers to structures can be registered", t)
		return
	}
	named, ok := types.Unalias(pointer.Elem()).(*types.Named)
	if !ok || named.Obj().Pkg() == nil {
		r.unknown("a plugin of type %s", t)
		return
	}
	p := named.Obj().Pkg()
	r.graph.Plugins = append(r.graph.Plugins, &PluginNode{
		Package:      p.Path(),
		Type:         named.Obj().Name(),
		GoType:       "*" + p.Name() + "." + named.Obj().Name(),
		Module:       r.packages[p.Path()].module(),
		Init:         []Need{},
		Provides:     []Provided{},
		Collects:     []Need{},
		Methods:      []string{},
		Sections:     []string{},
		DisabledWhen: []Condition{},
		Unknown:      []Unknown{},
		pointer:      pointer,
	})
}

// values are the types of the plugins in an expression: a value, a list of them, or a function that returns one.
func (r *reader) values(p *listedPackage, function *ast.FuncDecl, e ast.Expr, depth int) []types.Type {
	e = ast.Unparen(e)
	t := p.info.TypeOf(e)
	if t == nil || depth > 8 {
		r.unknown("%s: a plugin is registered by a value that can't be read", r.at(e.Pos()))
		return nil
	}
	if _, isPointer := t.Underlying().(*types.Pointer); isPointer {
		return []types.Type{t}
	}
	var found []types.Type
	switch e := e.(type) {
	case *ast.CompositeLit:
		for _, element := range e.Elts {
			found = append(found, r.values(p, function, element, depth+1)...)
		}
		return found
	case *ast.CallExpr:
		if name, ok := ast.Unparen(e.Fun).(*ast.Ident); ok && name.Name == "append" && p.info.Types[e.Fun].IsBuiltin() {
			for _, argument := range e.Args {
				found = append(found, r.values(p, function, argument, depth+1)...)
			}
			return found
		}
		called, ok := r.functions[callee(p.info, e)]
		if ok && called.declaration.Body != nil {
			returned := returns(called.declaration.Body)
			if len(returned) == 1 && len(returned[0].Results) == 1 {
				return r.values(called.in, called.declaration, returned[0].Results[0], depth+1)
			}
		}
	case *ast.Ident:
		if value := soleValue(p.info, function, e); value != nil {
			return r.values(p, function, value, depth+1)
		}
	}
	r.unknown("%s: plugins are registered by %s", r.at(e.Pos()), types.ExprString(e))
	return nil
}

// soleValue is the only value that is assigned to a local variable.
func soleValue(info *types.Info, function *ast.FuncDecl, name *ast.Ident) ast.Expr {
	variable := info.ObjectOf(name)
	if _, ok := variable.(*types.Var); !ok || function == nil || function.Body == nil {
		return nil
	}
	var values []ast.Expr
	ast.Inspect(function.Body, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.AssignStmt:
			for i, left := range node.Lhs {
				if left, ok := ast.Unparen(left).(*ast.Ident); ok && info.ObjectOf(left) == variable {
					if len(node.Lhs) == len(node.Rhs) && (node.Tok == token.DEFINE || node.Tok == token.ASSIGN) {
						values = append(values, node.Rhs[i])
					} else {
						values = append(values, nil)
					}
				}
			}
		case *ast.ValueSpec:
			for i, left := range node.Names {
				if info.ObjectOf(left) == variable && i < len(node.Values) && len(node.Names) == len(node.Values) {
					values = append(values, node.Values[i])
				}
			}
		case *ast.UnaryExpr:
			if taken, ok := ast.Unparen(node.X).(*ast.Ident); ok && node.Op == token.AND && info.ObjectOf(taken) == variable {
				values = append(values, nil)
			}
		}
		return true
	})
	if len(values) != 1 {
		return nil
	}
	return values[0]
}

// describe reads a plugin by itself.
func (r *reader) describe(p *PluginNode) {
	in := r.packages[p.Package]
	if in != nil && len(in.problems) > 0 {
		where, text := r.problem(in.problems[0])
		p.missing("types", where, text)
	}
	if in == nil || in.checked == nil {
		p.missing("types", "", "the package was not read from source")
	}
	methods := types.NewMethodSet(p.pointer)
	for i := 0; i < methods.Len(); i++ {
		if method := methods.At(i).Obj(); method.Exported() {
			p.Methods = append(p.Methods, method.Name())
		}
	}
	if value, ok := r.constantOf(p, "Name", "name"); ok {
		name := constant.StringVal(value)
		p.Name = &name
	}
	if r.method(p, "Weight") == nil {
		weight := uint64(1)
		p.Weight = &weight
	} else if value, ok := r.constantOf(p, "Weight", "weight"); ok {
		if weight, exact := constant.Uint64Val(constant.ToInt(value)); exact {
			p.Weight = &weight
		}
	}
	for _, call := range r.calls(p, "Provides", "Bind") {
		t := r.named(p, call, 0, "provides")
		if t == nil {
			continue
		}
		provided := Provided{Type: r.typeName(p, t)}
		if len(call.Args) > 1 {
			provided.Method = methodName(call.Args[1])
		}
		p.Provides = append(p.Provides, provided)
		p.provided = append(p.provided, t)
	}
	if isConfiguration(p.pointer) {
		p.IsConfiguration = true
		r.configurations = append(r.configurations, p.pointer)
	}
}

func (p *PluginNode) missing(what, where, text string) {
	p.Unknown = append(p.Unknown, Unknown{What: what, Where: where, Text: text})
}

// problem is an error of the parser or the type checker, with its position apart.
func (r *reader) problem(err error) (where, text string) {
	var typed types.Error
	var parsed scanner.ErrorList
	switch {
	case errors.As(err, &typed):
		return r.at(typed.Pos), typed.Msg
	case errors.As(err, &parsed) && len(parsed) > 0:
		return place(parsed[0].Pos), parsed[0].Msg
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return "", line
		}
	}
	return "", err.Error()
}

// connect finds the plugins that a plugin depends on.
func (r *reader) connect(p *PluginNode) {
	initializer := r.method(p, "Init")
	if initializer == nil {
		if p.isUntyped() {
			return
		}
		if hidden := r.packages[p.Package].initFile(r.packages[p.Package].IgnoredGoFiles); hidden != "" {
			p.invalid(fmt.Sprintf("it has no method Init: a build constraint excludes %s", hidden))
		} else {
			p.invalid("it has no method Init")
		}
		return
	}
	signature := initializer.Type().(*types.Signature)
	if results := signature.Results(); results.Len() != 1 || types.TypeString(results.At(0).Type(), nil) != "error" {
		p.invalid("its Init doesn't return only an error")
	}
	for i := 0; i < signature.Params().Len(); i++ {
		t := signature.Params().At(i).Type()
		if !types.IsInterface(t) {
			if basic, ok := t.(*types.Basic); ok && basic.Kind() == types.Invalid {
				p.missing("init", r.at(initializer.Pos()), "the type of a parameter")
			} else {
				p.invalid(fmt.Sprintf("parameter %s of its Init is not an interface", r.typeName(p, t)))
			}
			continue
		}
		p.Init = append(p.Init, r.need(p, t))
	}
	for _, call := range r.calls(p, "Collects", "Fits") {
		if t := r.named(p, call, 1, "collects"); t != nil {
			p.Collects = append(p.Collects, r.need(p, t))
		}
	}
	in := r.packages[p.Package]
	reached := map[string]bool{}
	r.reach(p.Package, in.module(), reached)
	p.Sections = r.sections(func(other *listedPackage) bool { return reached[other.ImportPath] }, p)
	r.disabled(p, initializer)
}

// isUntyped: the package didn't type-check, and methods may be missing for that reason.
func (p *PluginNode) isUntyped() bool {
	for _, unknown := range p.Unknown {
		if unknown.What == "types" {
			return true
		}
	}
	return false
}

func (p *PluginNode) invalid(why string) {
	if p.Invalid == nil {
		p.Invalid = &why
	}
}

// reach collects the packages of a module that a package of it imports, and itself.
func (r *reader) reach(path, module string, reached map[string]bool) {
	p := r.packages[path]
	if p == nil || reached[path] || p.module() != module {
		return
	}
	reached[path] = true
	for _, imported := range p.Imports {
		r.reach(imported, module, reached)
	}
}

func (r *reader) need(p *PluginNode, t types.Type) Need {
	need := Need{Type: r.typeName(p, t), Methods: []string{}, Implementers: []Implementer{}}
	wanted, ok := t.Underlying().(*types.Interface)
	if !ok {
		return need
	}
	for i := 0; i < wanted.NumMethods(); i++ {
		need.Methods = append(need.Methods, wanted.Method(i).Name())
	}
	for index, other := range r.graph.Plugins {
		if other == p {
			continue
		}
		if types.Implements(other.pointer, wanted) {
			need.Implementers = append(need.Implementers, Implementer{Plugin: index})
			continue
		}
		for i, provided := range other.provided {
			if types.Implements(provided, wanted) {
				need.Implementers = append(need.Implementers, Implementer{index, other.Provides[i].Method})
			}
		}
	}
	weight := func(i int) uint64 {
		if weight := r.graph.Plugins[need.Implementers[i].Plugin].Weight; weight != nil {
			return *weight
		}
		return 1
	}
	sort.SliceStable(need.Implementers, func(i, j int) bool { return weight(i) > weight(j) })
	return need
}

func (r *reader) method(p *PluginNode, name string) *types.Func {
	selection := types.NewMethodSet(p.pointer).Lookup(nil, name)
	if selection == nil {
		return nil
	}
	function, _ := selection.Obj().(*types.Func)
	return function
}

// constantOf is the constant that a method returns.
func (r *reader) constantOf(p *PluginNode, name, what string) (constant.Value, bool) {
	function := r.method(p, name)
	if function == nil {
		return nil, false
	}
	declared, ok := r.functions[function]
	if ok && declared.declaration.Body != nil {
		returned := returns(declared.declaration.Body)
		if len(returned) == 1 && len(returned[0].Results) == 1 {
			value := r.constantValue(declared.in, declared.declaration, returned[0].Results[0])
			if value != nil {
				return value, true
			}
		}
	}
	p.missing(what, r.at(function.Pos()), "the method "+name+" doesn't return a constant")
	return nil, false
}

// calls are the calls of dep.Bind and dep.Fits in the list that a method returns.
func (r *reader) calls(p *PluginNode, name, wanted string) []listedCall {
	function := r.method(p, name)
	if function == nil {
		return nil
	}
	what := strings.ToLower(name)
	declared, ok := r.functions[function]
	if !ok || declared.declaration.Body == nil {
		p.missing(what, r.at(function.Pos()), "the method "+name+" was not read from source")
		return nil
	}
	body := declared.declaration.Body
	computed := func() { p.missing(what, r.at(function.Pos()), "the method "+name+" computes its list") }
	var list *ast.CompositeLit
	returned := returns(body)
	if len(returned) == 1 && len(returned[0].Results) == 1 {
		value := ast.Unparen(returned[0].Results[0])
		if variable, ok := value.(*ast.Ident); ok && variable.Name != "nil" {
			value = soleValue(declared.in.info, declared.declaration, variable)
		}
		switch value := value.(type) {
		case *ast.CompositeLit:
			list = value
		case *ast.Ident:
			return nil
		}
	}
	if list == nil {
		computed()
		return nil
	}
	var found []listedCall
	for _, element := range list.Elts {
		call, ok := ast.Unparen(element).(*ast.CallExpr)
		if called := callee(declared.in.info, call); !ok || called == nil || called.Name() != wanted ||
			!isIn(called, "github.com/roadrunner-server/endure") {
			computed()
			continue
		}
		found = append(found, listedCall{call, declared.in})
	}
	return found
}

// named is the interface I of an argument `(*I)(nil)`.
func (r *reader) named(p *PluginNode, call listedCall, argument int, what string) types.Type {
	if argument < len(call.Args) {
		if t := call.in.info.TypeOf(call.Args[argument]); t != nil {
			if pointer, ok := types.Unalias(t).(*types.Pointer); ok && types.IsInterface(pointer.Elem()) {
				return pointer.Elem()
			}
		}
	}
	p.missing(what, r.at(call.Pos()), types.ExprString(call.Fun)+" has no interface")
	return nil
}

// typeName is a type as the plugin's own package writes it.
func (r *reader) typeName(p *PluginNode, t types.Type) string {
	return types.TypeString(t, func(other *types.Package) string {
		if other.Path() == p.Package {
			return ""
		}
		return other.Name()
	})
}

func methodName(e ast.Expr) string {
	if selector, ok := ast.Unparen(e).(*ast.SelectorExpr); ok {
		return selector.Sel.Name
	}
	return types.ExprString(e)
}

// isConfiguration: plugins read the configuration file through this type.
func isConfiguration(t types.Type) bool {
	set := types.NewMethodSet(t)
	for _, name := range []string{"Has", "UnmarshalKey"} {
		selection := set.Lookup(nil, name)
		if selection == nil || !isKeyMethod(selection.Obj()) {
			return false
		}
	}
	return true
}

// isKeyMethod: `Has(string) bool`, `Get(string) any` or `UnmarshalKey(string, any) error`.
func isKeyMethod(object types.Object) bool {
	function, ok := object.(*types.Func)
	if !ok {
		return false
	}
	signature := function.Type().(*types.Signature)
	parameters, results := signature.Params(), signature.Results()
	if parameters.Len() == 0 || signature.Variadic() || results.Len() != 1 || !isBasic(parameters.At(0).Type(), types.String) {
		return false
	}
	result := types.TypeString(results.At(0).Type(), nil)
	switch function.Name() {
	case "Has":
		return parameters.Len() == 1 && result == "bool"
	case "Get":
		return parameters.Len() == 1 && (result == "any" || result == "interface{}")
	case "UnmarshalKey":
		return parameters.Len() == 2 && types.IsInterface(parameters.At(1).Type()) && result == "error"
	}
	return false
}

func isBasic(t types.Type, kind types.BasicKind) bool {
	basic, ok := t.Underlying().(*types.Basic)
	return ok && basic.Kind() == kind
}

// configurationCall is the method of a call that reads a key of the configuration.
func (r *reader) configurationCall(info *types.Info, call *ast.CallExpr) string {
	selector, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr)
	if !ok || len(call.Args) == 0 {
		return ""
	}
	selection := info.Selections[selector]
	if selection == nil {
		return ""
	}
	object := selection.Obj()
	if pointer, ok := selection.Recv().(*types.Pointer); ok {
		// RoadRunner and its configuration plugin read through viper.
		if named, ok := types.Unalias(pointer.Elem()).(*types.Named); ok && named.Obj().Name() == "Viper" {
			switch name := object.Name(); {
			case name == "IsSet", name == "InConfig", name == "UnmarshalKey", name == "Sub", strings.HasPrefix(name, "Get"):
				return name
			}
		}
	}
	if !isKeyMethod(object) {
		return ""
	}
	wanted, isInterface := selection.Recv().Underlying().(*types.Interface)
	for _, t := range r.configurations {
		if types.Identical(t, selection.Recv()) || isInterface && types.Implements(t, wanted) {
			return object.Name()
		}
	}
	return ""
}

// sections are the keys that packages read. Keys that are no constants are noted on the plugin.
func (r *reader) sections(wanted func(*listedPackage) bool, plugin *PluginNode) []string {
	keys := map[string]bool{}
	for _, p := range r.ordered {
		if p.info == nil || !wanted(p) {
			continue
		}
		for _, file := range p.files {
			for _, declaration := range file.Decls {
				function, _ := declaration.(*ast.FuncDecl)
				ast.Inspect(declaration, func(node ast.Node) bool {
					call, ok := node.(*ast.CallExpr)
					if !ok || r.configurationCall(p.info, call) == "" {
						return true
					}
					if key, ok := r.key(p, function, call.Args[0]); ok {
						keys[key] = true
					} else if plugin != nil && !plugin.IsConfiguration {
						plugin.missing("section", r.at(call.Pos()), types.ExprString(call))
					}
					return true
				})
			}
		}
	}
	sorted := make([]string, 0, len(keys))
	for key := range keys {
		sorted = append(sorted, key)
	}
	sort.Strings(sorted)
	return sorted
}

func (r *reader) key(p *listedPackage, function *ast.FuncDecl, e ast.Expr) (string, bool) {
	value := r.constantValue(p, function, e)
	if value == nil || value.Kind() != constant.String {
		return "", false
	}
	return constant.StringVal(value), true
}

// constantValue is the value of a constant, of fmt.Sprintf with constants, or of a variable that is never changed.
func (r *reader) constantValue(p *listedPackage, function *ast.FuncDecl, e ast.Expr) constant.Value {
	e = ast.Unparen(e)
	if value := p.info.Types[e].Value; value != nil {
		return value
	}
	switch e := e.(type) {
	case *ast.BinaryExpr:
		left, right := r.constantValue(p, function, e.X), r.constantValue(p, function, e.Y)
		if e.Op == token.ADD && left != nil && right != nil && left.Kind() == right.Kind() {
			return constant.BinaryOp(left, token.ADD, right)
		}
	case *ast.Ident:
		if value := soleValue(p.info, function, e); value != nil && value != e {
			return r.constantValue(p, nil, value)
		}
	case *ast.CallExpr:
		called := callee(p.info, e)
		if called == nil || called.FullName() != "fmt.Sprintf" || len(e.Args) == 0 {
			return nil
		}
		format := r.constantValue(p, function, e.Args[0])
		if format == nil || format.Kind() != constant.String {
			return nil
		}
		var arguments []any
		for _, argument := range e.Args[1:] {
			value := r.constantValue(p, function, argument)
			if value == nil || value.Kind() != constant.String {
				return nil
			}
			arguments = append(arguments, constant.StringVal(value))
		}
		text := fmt.Sprintf(constant.StringVal(format), arguments...)
		if !strings.Contains(text, "%!") {
			return constant.MakeString(text)
		}
	}
	return nil
}

// disabled reads when Init returns errors.Disabled.
func (r *reader) disabled(p *PluginNode, initializer *types.Func) {
	declared, ok := r.functions[initializer]
	if !ok || declared.declaration.Body == nil {
		p.missing("disabled", r.at(initializer.Pos()), "the method Init was not read from source")
		return
	}
	w := &walk{reader: r, in: declared.in, function: declared.declaration, seen: map[*ast.FuncDecl]bool{declared.declaration: true}}
	w.block(declared.declaration.Body.List, is(true))
	p.DisabledWhen = append(p.DisabledWhen, w.found...)
}

// walk follows the statements of Init with the condition under which each is reached. A call that returns an
// error is assumed to succeed.
type walk struct {
	*reader
	in       *listedPackage
	function *ast.FuncDecl
	seen     map[*ast.FuncDecl]bool
	found    []Condition
}

func is(value bool) Condition { return Condition{Is: &value} }

func (c Condition) isConstant(value bool) bool { return c.Is != nil && *c.Is == value }

func not(c Condition) Condition {
	switch {
	case c.Is != nil:
		return is(!*c.Is)
	case c.Not != nil:
		return *c.Not
	}
	return Condition{Not: &c}
}

func all(conditions ...Condition) Condition {
	var parts []Condition
	for _, c := range conditions {
		switch {
		case c.isConstant(false):
			return c
		case c.isConstant(true):
		case c.All != nil:
			parts = append(parts, c.All...)
		default:
			parts = append(parts, c)
		}
	}
	switch len(parts) {
	case 0:
		return is(true)
	case 1:
		return parts[0]
	}
	return Condition{All: parts}
}

func either(conditions ...Condition) Condition {
	negated := make([]Condition, len(conditions))
	for i, c := range conditions {
		negated[i] = not(c)
	}
	if joined := all(negated...); joined.All == nil {
		return not(joined)
	}
	var parts []Condition
	for _, c := range conditions {
		if !c.isConstant(false) {
			parts = append(parts, c)
		}
	}
	return Condition{Any: parts}
}

// block returns the condition under which its end is reached.
func (w *walk) block(statements []ast.Stmt, reached Condition) Condition {
	for _, statement := range statements {
		if reached.isConstant(false) {
			break
		}
		reached = w.statement(statement, reached)
	}
	return reached
}

func (w *walk) statement(statement ast.Stmt, reached Condition) Condition {
	switch s := statement.(type) {
	case *ast.ReturnStmt:
		w.returned(s, reached)
		return is(false)
	case *ast.BlockStmt:
		return w.block(s.List, reached)
	case *ast.LabeledStmt:
		return w.statement(s.Stmt, reached)
	case *ast.IfStmt:
		if s.Init != nil {
			reached = w.statement(s.Init, reached)
		}
		condition := w.condition(s.Cond)
		then := w.block(s.Body.List, all(reached, condition))
		otherwise := all(reached, not(condition))
		if s.Else != nil {
			otherwise = w.statement(s.Else, otherwise)
		}
		if then.isConstant(false) {
			return otherwise
		}
		if otherwise.isConstant(false) {
			return then
		}
		if s.Else == nil && !returnsIn(s.Body) {
			return reached
		}
		return either(then, otherwise)
	case *ast.SwitchStmt:
		if s.Init != nil {
			reached = w.statement(s.Init, reached)
		}
		before := all()
		for _, clause := range s.Body.List {
			clause := clause.(*ast.CaseClause)
			condition := before
			for _, e := range clause.List {
				if s.Tag == nil {
					condition = all(condition, w.condition(e))
				} else {
					condition = all(condition, Condition{Unknown: types.ExprString(s.Tag) + " == " + types.ExprString(e)})
				}
			}
			if s.Tag == nil && len(clause.List) == 1 {
				before = all(before, not(w.condition(clause.List[0])))
			}
			w.block(clause.Body, all(reached, condition))
		}
		if returnsIn(s.Body) && !onlyFails(w.in.info, s.Body) {
			return all(reached, Condition{Unknown: "switch"})
		}
		return reached
	case *ast.ForStmt:
		return w.loop(s.Body, reached, "for")
	case *ast.RangeStmt:
		return w.loop(s.Body, reached, "range "+types.ExprString(s.X))
	case *ast.SelectStmt:
		return w.loop(s.Body, reached, "select")
	case *ast.TypeSwitchStmt:
		return w.loop(s.Body, reached, "switch")
	}
	// A call whose error may be Disabled.
	w.calls(statement, reached)
	return reached
}

func (w *walk) loop(body *ast.BlockStmt, reached Condition, text string) Condition {
	w.block(body.List, all(reached, Condition{Unknown: text}))
	if returnsIn(body) && !onlyFails(w.in.info, body) {
		return all(reached, Condition{Unknown: text})
	}
	return reached
}

func (w *walk) returned(s *ast.ReturnStmt, reached Condition) {
	if mentionsDisabled(w.in.info, s) {
		w.found = append(w.found, reached)
		return
	}
	if len(s.Results) == 1 {
		if call, ok := ast.Unparen(s.Results[0]).(*ast.CallExpr); ok {
			if called, ok := w.functions[callee(w.in.info, call)]; ok && called.declaration.Body != nil && !w.seen[called.declaration] {
				inner := &walk{reader: w.reader, in: called.in, function: called.declaration, seen: w.seen}
				w.seen[called.declaration] = true
				inner.block(called.declaration.Body.List, reached)
				w.found = append(w.found, inner.found...)
				return
			}
		}
	}
	w.calls(s, reached)
}

// calls notes the calls of functions that mention errors.Disabled, and other uses of it.
func (w *walk) calls(statement ast.Stmt, reached Condition) {
	if mentionsDisabled(w.in.info, statement) {
		w.found = append(w.found, all(reached, Condition{Unknown: w.at(statement.Pos())}))
		return
	}
	ast.Inspect(statement, func(node ast.Node) bool {
		if _, ok := node.(*ast.FuncLit); ok {
			return false
		}
		if call, ok := node.(*ast.CallExpr); ok {
			called, ok := w.functions[callee(w.in.info, call)]
			if ok && called.declaration.Body != nil && mentionsDisabled(called.in.info, called.declaration.Body) {
				w.found = append(w.found, all(reached, Condition{Unknown: types.ExprString(call)}))
			}
		}
		return true
	})
}

func (w *walk) condition(e ast.Expr) Condition {
	e = ast.Unparen(e)
	if value := w.in.info.Types[e].Value; value != nil && value.Kind() == constant.Bool {
		return is(constant.BoolVal(value))
	}
	switch e := e.(type) {
	case *ast.UnaryExpr:
		if e.Op == token.NOT {
			return not(w.condition(e.X))
		}
	case *ast.BinaryExpr:
		switch e.Op {
		case token.LAND:
			return all(w.condition(e.X), w.condition(e.Y))
		case token.LOR:
			return either(w.condition(e.X), w.condition(e.Y))
		case token.NEQ, token.EQL:
			if isError(w.in.info, e.X) && isNil(w.in.info, e.Y) {
				return is(e.Op == token.EQL)
			}
		}
	case *ast.CallExpr:
		name := w.configurationCall(w.in.info, e)
		if name == "Has" || name == "IsSet" {
			if key, ok := w.key(w.in, w.function, e.Args[0]); ok {
				return Condition{Has: key}
			}
		}
	}
	return Condition{Unknown: types.ExprString(e)}
}

func isError(info *types.Info, e ast.Expr) bool {
	t := info.TypeOf(e)
	return t != nil && types.TypeString(t, nil) == "error"
}

func isNil(info *types.Info, e ast.Expr) bool { return info.Types[e].IsNil() }

// onlyFails: each return in a block is the end of a branch on an error.
func onlyFails(info *types.Info, body *ast.BlockStmt) bool {
	fails := true
	ast.Inspect(body, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ReturnStmt:
			if len(node.Results) == 1 && isNil(info, node.Results[0]) {
				fails = false
			}
		}
		return true
	})
	return fails
}

func mentionsDisabled(info *types.Info, node ast.Node) bool {
	found := false
	ast.Inspect(node, func(node ast.Node) bool {
		if name, ok := node.(*ast.Ident); ok && name.Name == "Disabled" {
			object := info.Uses[name]
			if object != nil && object.Pkg() != nil && object.Pkg().Path() == "github.com/roadrunner-server/errors" {
				found = true
			}
		}
		return !found
	})
	return found
}

// returns are the return statements of a function, without those of function literals.
func returns(body *ast.BlockStmt) []*ast.ReturnStmt {
	var found []*ast.ReturnStmt
	ast.Inspect(body, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ReturnStmt:
			found = append(found, node)
		}
		return true
	})
	return found
}

func returnsIn(body *ast.BlockStmt) bool { return len(returns(body)) > 0 }

// callee is the function that a call names, if it is known before the program runs.
func callee(info *types.Info, call *ast.CallExpr) *types.Func {
	if call == nil {
		return nil
	}
	var name *ast.Ident
	switch called := ast.Unparen(call.Fun).(type) {
	case *ast.Ident:
		name = called
	case *ast.SelectorExpr:
		name = called.Sel
	default:
		return nil
	}
	function, _ := info.Uses[name].(*types.Func)
	return function
}

func isIn(object types.Object, prefix string) bool {
	return object.Pkg() != nil && strings.HasPrefix(object.Pkg().Path()+"/", prefix+"/")
}

// at is a position as `package/file.go:line`.
func (r *reader) at(pos token.Pos) string { return place(r.fset.Position(pos)) }

func place(position token.Position) string {
	directory := filepath.Base(filepath.Dir(position.Filename))
	return fmt.Sprintf("%s/%s:%d", directory, filepath.Base(position.Filename), position.Line)
}
