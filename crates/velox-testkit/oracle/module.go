package main

import (
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// parts are the contents of a go.mod that both implementations are compared by.
type parts struct {
	Module    string   `json:"module"`
	Go        string   `json:"go"`
	Toolchain string   `json:"toolchain"`
	Lines     []string `json:"lines"`
}

func fileParts(f *modfile.File) parts {
	p := parts{Lines: []string{}}
	if f.Module != nil {
		p.Module = f.Module.Mod.Path
	}
	if f.Go != nil {
		p.Go = f.Go.Version
	}
	if f.Toolchain != nil {
		p.Toolchain = f.Toolchain.Name
	}
	for _, r := range f.Require {
		line := "require " + r.Mod.Path + " " + r.Mod.Version
		if r.Indirect {
			line += " indirect"
		}
		p.Lines = append(p.Lines, line)
	}
	for _, x := range f.Exclude {
		p.Lines = append(p.Lines, "exclude "+x.Mod.Path+" "+x.Mod.Version)
	}
	for _, r := range f.Replace {
		p.Lines = append(p.Lines, "replace "+r.Old.Path+" "+r.Old.Version+" => "+r.New.Path+" "+r.New.Version)
	}
	for _, r := range f.Retract {
		p.Lines = append(p.Lines, "retract "+r.Low+" "+r.High)
	}
	return p
}

func is(err error) (any, error) { return err == nil, nil }

func init() {
	text := func(f func(string) string) func([]string) (any, error) {
		return func(a []string) (any, error) { return f(a[0]), nil }
	}
	operations["semver.canonical"] = text(semver.Canonical)
	operations["semver.major"] = text(semver.Major)
	operations["semver.majorminor"] = text(semver.MajorMinor)
	operations["semver.prerelease"] = text(semver.Prerelease)
	operations["semver.build"] = text(semver.Build)
	operations["semver.compare"] = func(a []string) (any, error) { return semver.Compare(a[0], a[1]), nil }
	operations["module.checkpath"] = func(a []string) (any, error) { return is(module.CheckPath(a[0])) }
	operations["module.checkimport"] = func(a []string) (any, error) { return is(module.CheckImportPath(a[0])) }
	operations["module.checkfile"] = func(a []string) (any, error) { return is(module.CheckFilePath(a[0])) }
	operations["module.check"] = func(a []string) (any, error) { return is(module.Check(a[0], a[1])) }
	operations["module.escape"] = func(a []string) (any, error) { return module.EscapePath(a[0]) }
	operations["module.unescape"] = func(a []string) (any, error) { return module.UnescapePath(a[0]) }
	operations["module.escapeversion"] = func(a []string) (any, error) { return module.EscapeVersion(a[0]) }
	operations["module.unescapeversion"] = func(a []string) (any, error) { return module.UnescapeVersion(a[0]) }
	operations["module.split"] = func(a []string) (any, error) {
		prefix, major, ok := module.SplitPathVersion(a[0])
		if !ok {
			return nil, nil
		}
		return []string{prefix, major}, nil
	}
	operations["module.major"] = func(a []string) (any, error) { return is(module.CheckPathMajor(a[0], a[1])) }
	operations["module.canonical"] = text(module.CanonicalVersion)
	operations["module.match"] = func(a []string) (any, error) { return module.MatchPrefixPatterns(a[0], a[1]), nil }
	operations["module.sort"] = func(a []string) (any, error) {
		list := []module.Version{}
		for _, v := range a {
			path, version, _ := strings.Cut(v, "@")
			list = append(list, module.Version{Path: path, Version: version})
		}
		module.Sort(list)
		sorted := []string{}
		for _, v := range list {
			sorted = append(sorted, v.Path+"@"+v.Version)
		}
		return sorted, nil
	}
	operations["pseudo.is"] = func(a []string) (any, error) { return module.IsPseudoVersion(a[0]), nil }
	operations["pseudo.make"] = func(a []string) (any, error) {
		t, err := time.Parse(time.RFC3339, a[2])
		if err != nil {
			return nil, err
		}
		return module.PseudoVersion(a[0], a[1], t, a[3]), nil
	}
	operations["pseudo.base"] = func(a []string) (any, error) { return module.PseudoVersionBase(a[0]) }
	operations["pseudo.time"] = func(a []string) (any, error) {
		t, err := module.PseudoVersionTime(a[0])
		return t.Unix(), err
	}
	operations["pseudo.rev"] = func(a []string) (any, error) { return module.PseudoVersionRev(a[0]) }
	operations["modfile.parse"] = func(a []string) (any, error) {
		f, err := modfile.Parse("go.mod", []byte(a[0]), nil)
		if err != nil {
			return nil, err
		}
		return fileParts(f), nil
	}
	operations["modfile.lax"] = func(a []string) (any, error) {
		f, err := modfile.ParseLax("go.mod", []byte(a[0]), nil)
		if err != nil {
			return nil, err
		}
		return fileParts(f), nil
	}
	operations["modfile.path"] = func(a []string) (any, error) { return modfile.ModulePath([]byte(a[0])), nil }
	operations["modfile.format"] = func(a []string) (any, error) {
		f, err := modfile.Parse("go.mod", []byte(a[0]), nil)
		if err != nil {
			return nil, err
		}
		out, err := f.Format()
		return string(out), err
	}
}
