package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// hashes is the storage of a log.
type hashes []tlog.Hash

func (h hashes) ReadHashes(indexes []int64) (list []tlog.Hash, err error) {
	for _, i := range indexes {
		list = append(list, h[i])
	}
	return list, nil
}

// logOf returns the hashes of a log with the records "record 0", "record 1" and so on.
func logOf(n int64) (h hashes, err error) {
	for i := range n {
		more, err := tlog.StoredHashes(i, fmt.Appendf(nil, "record %d", i), h)
		if err != nil {
			return nil, err
		}
		h = append(h, more...)
	}
	return h, nil
}

func numbers(args []string) (list []int64, err error) {
	for _, a := range args {
		n, err := strconv.ParseInt(a, 10, 64)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

var servers []http.Handler

func init() {
	operations["note.key"] = func(args []string) (any, error) {
		skey, vkey, err := note.GenerateKey(strings.NewReader(args[1]), args[0])
		return []string{skey, vkey}, err
	}
	operations["note.sign"] = func(args []string) (any, error) {
		var signers []note.Signer
		for _, key := range args[1:] {
			s, err := note.NewSigner(key)
			if err != nil {
				return nil, err
			}
			signers = append(signers, s)
		}
		msg, err := note.Sign(&note.Note{Text: args[0]}, signers...)
		return string(msg), err
	}
	operations["note.open"] = func(args []string) (any, error) {
		var known []note.Verifier
		for _, key := range args[1:] {
			v, err := note.NewVerifier(key)
			if err != nil {
				return nil, err
			}
			known = append(known, v)
		}
		n, err := note.Open([]byte(args[0]), note.VerifierList(known...))
		if err != nil {
			return nil, err
		}
		return []any{n.Text, len(n.Sigs), len(n.UnverifiedSigs)}, nil
	}

	operations["tlog.hashes"] = func(args []string) (any, error) {
		n, err := numbers(args)
		if err != nil {
			return nil, err
		}
		return logOf(n[0])
	}
	operations["tlog.tree"] = func(args []string) (any, error) {
		n, err := numbers(args)
		if err != nil {
			return nil, err
		}
		h, err := logOf(n[0])
		if err != nil {
			return nil, err
		}
		return tlog.TreeHash(n[0], h)
	}
	operations["tlog.proofs"] = func(args []string) (any, error) {
		n, err := numbers(args)
		if err != nil {
			return nil, err
		}
		h, err := logOf(n[0])
		if err != nil {
			return nil, err
		}
		record, err := tlog.ProveRecord(n[0], n[1], h)
		if err != nil {
			return nil, err
		}
		tree, err := tlog.ProveTree(n[0], n[1]+1, h)
		return [][]tlog.Hash{record, tree}, err
	}
	operations["tlog.index"] = func(args []string) (any, error) {
		n, err := numbers(args)
		if err != nil {
			return nil, err
		}
		level, number := tlog.SplitStoredHashIndex(n[1])
		tile := tlog.TileForIndex(int(n[0]), n[1])
		return []any{level, number, tlog.StoredHashIndex(level, number), tlog.StoredHashCount(n[1]), tile.Path()}, nil
	}
	operations["tlog.path"] = func(args []string) (any, error) {
		t, err := tlog.ParseTilePath(args[0])
		return []int64{int64(t.H), int64(t.L), t.N, int64(t.W)}, err
	}
	operations["tlog.parse_tree"] = func(args []string) (any, error) {
		t, err := tlog.ParseTree([]byte(args[0]))
		return []any{t.N, t.Hash.String()}, err
	}
	operations["tlog.parse_record"] = func(args []string) (any, error) {
		id, text, rest, err := tlog.ParseRecord([]byte(args[0]))
		if err == nil && id < 0 {
			err = errors.New("negative record")
		}
		return []any{id, string(text), string(rest)}, err
	}

	// sumdb.new starts a server with a signer key; its lines for a module depend on its flavour.
	operations["sumdb.new"] = func(args []string) (any, error) {
		ops := sumdb.NewTestServer(args[0], func(path, vers string) ([]byte, error) {
			if strings.Contains(path, "missing") {
				return nil, errors.New("no such module")
			}
			return fmt.Appendf(nil, "%s %s h1:%s=\n%s %s/go.mod h1:mod=\n", path, vers, args[1], path, vers), nil
		})
		servers = append(servers, sumdb.NewServer(ops))
		return len(servers) - 1, nil
	}
	operations["sumdb.get"] = func(args []string) (any, error) {
		i, err := strconv.Atoi(args[0])
		if err != nil {
			return nil, err
		}
		answer := httptest.NewRecorder()
		servers[i].ServeHTTP(answer, httptest.NewRequest("GET", args[1], nil))
		if answer.Code != http.StatusOK {
			return nil, errors.New(answer.Body.String())
		}
		return base64.StdEncoding.EncodeToString(answer.Body.Bytes()), nil
	}
}
