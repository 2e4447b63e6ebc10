// Outside is a program of another module that uses the client of the registry: it registers an instance,
// watches the service, calls it and leaves.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/backplane-dev/backplane/client"
	"github.com/backplane-dev/backplane/client/policy"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello, ", r.FormValue("name"))
	}))
	defer server.Close()
	registry, err := client.New(client.Config{URLs: []string{os.Args[1]}, Token: os.Args[2]})
	if err != nil {
		return err
	}
	defer registry.Close()
	if err := registry.DefineService(ctx, client.Service{Name: "greeter"}); err != nil {
		return err
	}
	me, err := registry.Register(ctx, client.Registration{Service: "greeter", Instance: "greeter-1", URL: server.URL})
	if err != nil {
		return err
	}
	watch, err := registry.Watch(ctx, "greeter")
	if err != nil {
		return err
	}
	defer watch.Close()
	balancer, err := client.NewBalancer(watch, policy.LeastConnections)
	if err != nil {
		return err
	}
	transport, err := client.NewTransport(balancer, client.TransportConfig{})
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("http://greeter/hello?name=outside")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	fmt.Println(me.State().Status, string(text))
	return me.Close(ctx)
}
