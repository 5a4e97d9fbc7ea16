// Command pause does nothing until it is told to end: it keeps the namespaces of a pod open, and as their first process it reaps the dead.
// It stands for the image of the same name, which cannot be pulled where no container registry is reached.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// version goes up with every change here, so that what was built before is not used again.
const version = "v1"

func main() {
	if len(os.Args) > 1 && os.Args[1] == "-v" {
		fmt.Println("pause", version)
		return
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for {
		select {
		case <-ended:
			return
		case <-children:
			for pid := 1; pid > 0; {
				pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			}
		}
	}
}
