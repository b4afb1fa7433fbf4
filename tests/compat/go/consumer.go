package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// okRate is how many messages a second a healthy consumer handles.
const okRate = 50

// report is the wire format: exactly these three fields.
type report struct {
	Timestamp string  `json:"timestamp"`
	RateOK    float64 `json:"rate_ok"`
	CountFail int64   `json:"count_fail"`
}

type consumer struct {
	kv   *api.KV
	key  string
	s    settings
	last time.Time
}

func newConsumer(kv *api.KV, s settings) *consumer {
	return &consumer{kv: kv, key: s.prefix + "/" + s.name + "-" + newUUID(), s: s, last: time.Now()}
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (c *consumer) run(ctx context.Context) {
	emit(event{Event: "started", Key: c.key})
	ticker := time.NewTicker(c.s.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			if _, err := c.kv.Delete(c.key, nil); err != nil {
				log.Printf("delete %s: %v", c.key, err)
				return
			}
			emit(event{Event: "deleted", Key: c.key})
			return
		case <-ticker.C:
			c.report()
		}
	}
}

// report writes what the last interval was like. A failed write is lost: the next one replaces it.
func (c *consumer) report() {
	failed, failing := c.failures()
	elapsed := max(time.Since(c.last).Seconds(), 1)
	c.last = time.Now()
	r := report{Timestamp: time.Now().UTC().Format(time.RFC3339), CountFail: failed}
	if !failing {
		r.RateOK = float64(int64(okRate*c.s.interval.Seconds())) / elapsed
	}
	value, err := json.Marshal(r)
	if err != nil {
		log.Fatalf("report: %v", err)
	}
	if _, err := c.kv.Put(&api.KVPair{Key: c.key, Value: value}, nil); err != nil {
		log.Printf("put %s: %v", c.key, err)
		return
	}
	emit(event{Event: "report", Key: c.key, Failures: &failed})
}

// failures says how often processing failed in this interval, and whether it fails at all.
func (c *consumer) failures() (int64, bool) {
	if c.s.failFile == "" {
		return 0, false
	}
	text, err := os.ReadFile(c.s.failFile)
	if err != nil {
		return 0, false
	}
	count, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		log.Fatalf("%s: %v", c.s.failFile, err)
	}
	return count, count > 0
}
