// Reads an Envoy configuration as JSON and holds it against Envoy's own message definitions:
// every field must exist, every value must pass the rules that Envoy's API states.
package main

import (
	"fmt"
	"io"
	"os"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	manager "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

type validated interface{ ValidateAll() error }

func run() error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var config bootstrap.Bootstrap
	if err := protojson.Unmarshal(text, &config); err != nil {
		return err
	}
	if err := config.ValidateAll(); err != nil {
		return err
	}
	// The rules stop at an Any: what is inside is validated by itself.
	for _, listening := range config.GetStaticResources().GetListeners() {
		for _, chain := range listening.GetFilterChains() {
			if err := network(chain.GetFilters()); err != nil {
				return err
			}
		}
	}
	return nil
}

func network(filters []*listener.Filter) error {
	for _, filter := range filters {
		message, err := inside(filter.GetTypedConfig())
		if err != nil {
			return err
		}
		http, ok := message.(*manager.HttpConnectionManager)
		if !ok {
			continue
		}
		for _, filter := range http.GetHttpFilters() {
			if _, err := inside(filter.GetTypedConfig()); err != nil {
				return err
			}
		}
	}
	return nil
}

func inside(packed *anypb.Any) (proto.Message, error) {
	message, err := packed.UnmarshalNew()
	if err != nil {
		return nil, err
	}
	if checked, ok := message.(validated); ok {
		err = checked.ValidateAll()
	}
	return message, err
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
