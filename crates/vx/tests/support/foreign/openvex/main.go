// Prints the statuses that an OpenVEX document has for a vulnerability of a component of a product, as Trivy looks them up:
// openvex FILE VULNERABILITY PRODUCT COMPONENT
package main

import (
	"fmt"
	"log"
	"os"

	"github.com/openvex/go-vex/pkg/vex"
)

func main() {
	document, err := vex.Open(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for _, statement := range document.Matches(os.Args[2], os.Args[3], os.Args[4:5]) {
		fmt.Println(statement.Status)
	}
}
