// Package breaker is net/http middleware that asks the sidecar before every request that may change
// something: http.ListenAndServe(":8080", breaker.Guard(mux, "localhost:9100", "orders", true))
package breaker

import (
	"fmt"
	"net/http"
	"time"
)

var client = http.Client{
	Timeout: 250 * time.Millisecond,
	// As many kept connections as requests may ask at once.
	Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute},
}

// Guard answers 503 with Retry-After while the breaker rejects; onNoAnswer is what holds while no
// sidecar answers.
func Guard(next http.Handler, address, name string, onNoAnswer bool) http.Handler {
	url := "http://" + address + "/allowed/" + name
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		admit, after := onNoAnswer, "1"
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
			admit = true
		default:
			if answer, err := client.Head(url); err == nil && answer.Header.Get("X-Breaker") != "" {
				admit, after = answer.StatusCode == http.StatusOK, answer.Header.Get("Retry-After")
			}
		}
		if admit {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Retry-After", after)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, `{"title":"Service Unavailable","status":503,"detail":"Try again in %s s."}`, after)
	})
}
