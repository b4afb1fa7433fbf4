// Asks before every line it would send. BREAKER_DEFAULT (admit or reject) holds if nobody answers.
package main

import (
	"bufio"
	"cmp"
	"fmt"
	"net/http"
	"os"
	"time"
)

func main() {
	url := "http://" + cmp.Or(os.Getenv("BREAKER_SIDECAR_ADDRESS"), "localhost:9100") + "/allowed/" + cmp.Or(os.Getenv("BREAKER"), "default")
	client := http.Client{Timeout: 250 * time.Millisecond} // keeps connections
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if answer, err := client.Head(url); err != nil || answer.Header.Get("X-Breaker") == "" {
			fmt.Println(cmp.Or(os.Getenv("BREAKER_DEFAULT"), "admit"), "no-answer")
		} else if answer.StatusCode == http.StatusOK {
			fmt.Println("admit")
		} else {
			fmt.Println("reject", answer.Header.Get("Retry-After"))
		}
	}
}
