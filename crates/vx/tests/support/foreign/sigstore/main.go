// Verifies a DSSE envelope with a public key, with the library of cosign and other clients of sigstore:
// sigstore ENVELOPE KEY
package main

import (
	"bytes"
	"crypto"
	"log"
	"os"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/dsse"
)

func main() {
	log.SetFlags(0)
	envelope, err := os.ReadFile(os.Args[1])
	check(err)
	text, err := os.ReadFile(os.Args[2])
	check(err)
	key, err := cryptoutils.UnmarshalPEMToPublicKey(text)
	check(err)
	verifier, err := signature.LoadVerifier(key, crypto.SHA256)
	check(err)
	check(dsse.WrapVerifier(verifier).VerifySignature(bytes.NewReader(envelope), nil))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
