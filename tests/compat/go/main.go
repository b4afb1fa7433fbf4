// Command compat behaves like the services that the sidecar joins: a consumer that reports its
// health to Consul, and a producer that obeys, and unless told otherwise moves, the shared breaker.
//
//	compat consumer -fail-file F   reports every -interval until SIGTERM, then deletes its key
//	compat producer [-follow]      follows breaker/state; without -follow it evaluates too
//
// Each thing it sees or does is one JSON object on a line of stdout. Errors go to stderr.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"
)

type settings struct {
	consul       string
	prefix       string
	name         string
	interval     time.Duration
	failFile     string
	evaluation   time.Duration
	threshold    int64
	openDuration time.Duration
	follow       bool
}

func parse(mode string, args []string) settings {
	var s settings
	flags := flag.NewFlagSet(mode, flag.ExitOnError)
	flags.StringVar(&s.consul, "consul", "127.0.0.1:8500", "address of Consul")
	flags.StringVar(&s.prefix, "prefix", "service-metrics/kafka-consumer", "where reports are")
	switch mode {
	case "consumer":
		flags.StringVar(&s.name, "name", "kafka-consumer", "first part of the instance's name")
		flags.DurationVar(&s.interval, "interval", 5*time.Second, "between two reports")
		flags.StringVar(&s.failFile, "fail-file", "",
			"while this file is there processing fails, as often in an interval as it says")
	case "producer":
		flags.DurationVar(&s.evaluation, "evaluation-interval", 5*time.Second, "between two ticks")
		flags.Int64Var(&s.threshold, "failure-threshold", 20, "failures that trip")
		flags.DurationVar(&s.openDuration, "open-duration", 30*time.Second, "how long OPEN lasts")
		flags.BoolVar(&s.follow, "follow", false, "only follow: no evaluator loop")
	}
	_ = flags.Parse(args) // exits on error
	if flags.NArg() > 0 {
		log.Fatalf("%s takes no arguments, got %q", mode, flags.Args())
	}
	return s
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 || (os.Args[1] != "consumer" && os.Args[1] != "producer") {
		fmt.Fprintln(os.Stderr, "usage: compat consumer|producer [flags]")
		os.Exit(2)
	}
	mode := os.Args[1]
	s := parse(mode, os.Args[2:])
	client, err := api.NewClient(&api.Config{Address: s.consul})
	if err != nil {
		log.Fatalf("Consul client: %v", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if mode == "consumer" {
		newConsumer(client.KV(), s).run(ctx)
		return
	}
	newProducer(client.KV(), s).run(ctx)
}
