package main

import (
	"context"
	"encoding/json"
	"log"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	stateKey = "breaker/state"
	closed   = "CLOSED"
	open     = "OPEN"
	halfOpen = "HALF_OPEN"
)

// breakerState is all that these producers know of the record.
type breakerState struct {
	CurrentState string    `json:"current_state"`
	LastChanged  time.Time `json:"last_changed"`
}

type producer struct {
	kv *api.KV
	s  settings

	mu    sync.Mutex
	local breakerState
}

func newProducer(kv *api.KV, s settings) *producer {
	return &producer{kv: kv, s: s, local: breakerState{CurrentState: closed}}
}

// allowed is what a producer asks before it sends: HALF_OPEN admits like CLOSED.
func (b breakerState) allowed() bool { return b.CurrentState != open }

func (p *producer) run(ctx context.Context) {
	emit(event{Event: "started"})
	var loops sync.WaitGroup
	loops.Go(func() { every(ctx, p.s.evaluation/2, p.sync) })
	if !p.s.follow {
		loops.Go(func() { every(ctx, p.s.evaluation, p.evaluate) })
	}
	loops.Wait()
}

func every(ctx context.Context, interval time.Duration, do func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			do()
		}
	}
}

// sync takes over the shared state where it is another than the local one. A record with the
// same state and a newer last_changed is not taken over.
func (p *producer) sync() {
	pair, _, err := p.kv.Get(stateKey, nil)
	if err != nil {
		log.Printf("get %s: %v", stateKey, err)
		return
	}
	if pair == nil || len(pair.Value) == 0 {
		return
	}
	var shared breakerState
	if err := json.Unmarshal(pair.Value, &shared); err != nil {
		log.Printf("parse %s: %v", stateKey, err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if shared.CurrentState != p.local.CurrentState {
		p.become(shared, "sync")
	}
}

// become sets the local state and says so; the caller holds the mutex.
func (p *producer) become(next breakerState, by string) {
	admits := next.allowed()
	from := p.local.CurrentState
	p.local = next
	emit(event{Event: "state", From: from, State: next.CurrentState, Since: &next.LastChanged,
		By: by, Allowed: &admits})
}

// evaluate is the producer's own state machine, which moves the shared state by timer.
func (p *producer) evaluate() {
	p.mu.Lock()
	local := p.local
	p.mu.Unlock()
	switch local.CurrentState {
	case closed:
		p.tripOnFailures()
	case open:
		if time.Since(local.LastChanged) > p.s.openDuration {
			p.write(halfOpen, nil)
		}
	case halfOpen:
		p.write(closed, nil)
	}
}

// tripOnFailures opens when the failures of all listed reports, stale or not, reach the threshold.
func (p *producer) tripOnFailures() {
	pairs, _, err := p.kv.List(p.s.prefix, nil)
	if err != nil {
		log.Printf("list %s: %v", p.s.prefix, err)
		return
	}
	var failures int64
	for _, pair := range pairs {
		var fields map[string]any
		if json.Unmarshal(pair.Value, &fields) != nil {
			continue
		}
		if count, ok := fields["count_fail"].(float64); ok {
			failures += int64(count)
		}
	}
	if len(pairs) > 0 && failures >= p.s.threshold {
		p.write(open, &failures)
	}
}

// write is a plain PUT, without check or lock. A producer that can't write closes its own door.
func (p *producer) write(state string, failures *int64) {
	next := breakerState{CurrentState: state, LastChanged: time.Now()}
	value, err := json.Marshal(next)
	if err != nil {
		log.Fatalf("state: %v", err)
	}
	if _, err := p.kv.Put(&api.KVPair{Key: stateKey, Value: value}, nil); err != nil {
		log.Printf("put %s: %v", stateKey, err)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.local.CurrentState = open
		return
	}
	emit(event{Event: "write", State: state, Failures: failures})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.become(next, "write")
}
