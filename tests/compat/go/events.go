package main

import (
	"encoding/json"
	"log"
	"os"
	"sync"
	"time"
)

// event is one line of stdout. A test follows these instead of guessing by time.
type event struct {
	At       time.Time  `json:"at"`
	Event    string     `json:"event"`
	Key      string     `json:"key,omitempty"`
	From     string     `json:"from,omitempty"`
	State    string     `json:"state,omitempty"`
	Since    *time.Time `json:"since,omitempty"`
	By       string     `json:"by,omitempty"`
	Allowed  *bool      `json:"allowed,omitempty"`
	Failures *int64     `json:"failures,omitempty"`
}

var stdout struct {
	sync.Mutex
	enc *json.Encoder
}

func emit(e event) {
	stdout.Lock()
	defer stdout.Unlock()
	if stdout.enc == nil {
		stdout.enc = json.NewEncoder(os.Stdout)
	}
	e.At = time.Now()
	if err := stdout.enc.Encode(e); err != nil {
		log.Fatalf("stdout: %v", err)
	}
}
