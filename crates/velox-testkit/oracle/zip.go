package main

import (
	"archive/zip"
	"debug/buildinfo"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"
)

// An entry is a file of a generated list or zip. Its kind is "file", "folder", "symlink" or "other".
type entry struct {
	Name    string `json:"path"`
	Kind    string `json:"kind"`
	Length  int64  `json:"size"`
	Content string `json:"content"`
}

func (e entry) Path() string                 { return e.Name }
func (e entry) Lstat() (fs.FileInfo, error)  { return entryInfo{e}, nil }
func (e entry) Open() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(e.Content)), nil }

type entryInfo struct{ e entry }

func (i entryInfo) Name() string       { return i.e.Name }
func (i entryInfo) Size() int64        { return i.e.Length }
func (i entryInfo) ModTime() time.Time { return time.Time{} }
func (i entryInfo) IsDir() bool        { return i.e.Kind == "folder" }
func (i entryInfo) Sys() any           { return nil }
func (i entryInfo) Mode() fs.FileMode {
	return map[string]fs.FileMode{"folder": fs.ModeDir, "symlink": fs.ModeSymlink, "other": fs.ModeNamedPipe}[i.e.Kind] | 0o644
}

type checked struct {
	Valid    []string `json:"valid"`
	Omitted  []string `json:"omitted"`
	Invalid  []string `json:"invalid"`
	TooLarge bool     `json:"too_large"`
}

func summary(cf modzip.CheckedFiles) checked {
	paths := func(list []modzip.FileError) []string {
		names := []string{}
		for _, e := range list {
			names = append(names, e.Path)
		}
		return names
	}
	return checked{append([]string{}, cf.Valid...), paths(cf.Omitted), paths(cf.Invalid), cf.SizeError != nil}
}

func entries(text string) (list []entry, err error) {
	err = json.Unmarshal([]byte(text), &list)
	return list, err
}

func init() {
	operations["dirhash.dir"] = func(args []string) (any, error) {
		return dirhash.HashDir(args[0], args[1], dirhash.Hash1)
	}
	operations["dirhash.zip"] = func(args []string) (any, error) {
		return dirhash.HashZip(args[0], dirhash.Hash1)
	}
	operations["dirhash.mod"] = func(args []string) (any, error) {
		return dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(args[0])), nil
		})
	}
	operations["zip.files"] = func(args []string) (any, error) {
		list, err := entries(args[0])
		if err != nil {
			return nil, err
		}
		var files []modzip.File
		for _, e := range list {
			files = append(files, e)
		}
		cf, _ := modzip.CheckFiles(files)
		return summary(cf), nil
	}
	operations["zip.create"] = func(args []string) (any, error) {
		out, err := os.Create(args[3])
		if err != nil {
			return nil, err
		}
		defer out.Close()
		return "", modzip.CreateFromDir(out, module.Version{Path: args[0], Version: args[1]}, args[2])
	}
	operations["zip.check"] = func(args []string) (any, error) {
		cf, err := modzip.CheckZip(module.Version{Path: args[0], Version: args[1]}, args[2])
		if err != nil && cf.Err() == nil {
			return nil, err
		}
		return summary(cf), nil
	}
	operations["zip.unzip"] = func(args []string) (any, error) {
		return "", modzip.Unzip(args[3], module.Version{Path: args[0], Version: args[1]}, args[2])
	}
	// zip.pack creates arbitrary zips, including malicious ones.
	operations["zip.pack"] = func(args []string) (any, error) {
		list, err := entries(args[1])
		if err != nil {
			return nil, err
		}
		out, err := os.Create(args[0])
		if err != nil {
			return nil, err
		}
		defer out.Close()
		w := zip.NewWriter(out)
		for _, e := range list {
			header := &zip.FileHeader{Name: e.Name, Method: zip.Deflate}
			header.SetMode(entryInfo{e}.Mode())
			f, err := w.CreateHeader(header)
			if err != nil {
				return nil, err
			}
			if _, err := io.WriteString(f, e.Content); err != nil {
				return nil, err
			}
		}
		return "", w.Close()
	}
	operations["buildinfo.read"] = func(args []string) (any, error) {
		return buildinfo.ReadFile(args[0])
	}
}
