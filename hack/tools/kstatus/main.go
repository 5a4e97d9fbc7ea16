// Command kstatus reads objects as JSON and prints for each, on a line, what the library says of it: Current, InProgress, Failed, Terminating.
// By this library Flux, kpt and others decide whether to go on waiting.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

const library = "sigs.k8s.io/cli-utils"

func main() {
	if len(os.Args) > 1 && os.Args[1] == "-v" {
		fmt.Println("kstatus", version())
		return
	}
	for objects := json.NewDecoder(os.Stdin); ; {
		var text json.RawMessage
		err := objects.Decode(&text)
		if errors.Is(err, io.EOF) {
			return
		}
		object := &unstructured.Unstructured{}
		if err == nil {
			err = utiljson.Unmarshal(text, &object.Object) // whole numbers as such
		}
		if err != nil {
			fail(err)
		}
		result, err := status.Compute(object)
		if err != nil {
			fail(err)
		}
		fmt.Println(result.Status)
	}
}

func version() string {
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, one := range build.Deps {
			if one.Path == library {
				return one.Version
			}
		}
	}
	return "unknown"
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "kstatus:", err)
	os.Exit(1)
}
