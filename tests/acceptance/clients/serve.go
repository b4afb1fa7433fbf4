// A server around the example middleware: serve ADDRESS BREAKER admit|reject. Prints its port.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"example/breaker"
)

func main() {
	fine := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "fine") })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	panic(http.Serve(listener, breaker.Guard(fine, os.Args[1], os.Args[2], os.Args[3] == "admit")))
}
