package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/backplane-dev/backplane/client"
)

// A service defines itself, registers the instance that it is, answers the
// registry's checks, and leaves before it stops.
func Example() {
	url, key := registryFor("greeter")
	ctx := context.Background()

	// What the service does, and how it is.
	health, err := client.NewHealth(client.HealthConfig{Checks: map[string]client.Check{
		"database": func(context.Context) error { return nil },
	}})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/healthz", health)
	mux.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello, ", r.FormValue("name")) })
	server := httptest.NewServer(mux)
	defer server.Close() // last

	// Where it is found.
	registry, err := client.New(client.Config{URLs: []string{url}, Token: key})
	if err != nil {
		panic(err)
	}
	defer registry.Close()
	err = registry.DefineService(ctx, client.Service{Name: "greeter", HealthCheck: &client.HealthCheck{Path: "/healthz"}})
	if err != nil {
		panic(err)
	}
	me, err := registry.Register(ctx, client.Registration{Service: "greeter", Instance: "greeter-1", URL: server.URL})
	if err != nil {
		panic(err)
	}
	fmt.Println("status:", me.State().Status)

	// Who calls it, here from the same process.
	watch, err := registry.Watch(ctx, "greeter")
	if err != nil {
		panic(err)
	}
	defer watch.Close()
	balancer, err := client.NewBalancer(watch, client.PowerOfTwo)
	if err != nil {
		panic(err)
	}
	transport, err := client.NewTransport(balancer, client.TransportConfig{})
	if err != nil {
		panic(err)
	}
	callers := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	resp, err := callers.Get("http://greeter/hello?name=world")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(err)
	}
	fmt.Println("answer:", string(text))

	// At SIGTERM: drain, then deregister, then stop serving.
	health.SetDraining(true)
	fmt.Println("left:", me.Close(ctx))
	// Output:
	// status: PASSING
	// answer: hello, world
	// left: <nil>
}

// A program that must not run without its place in the registry watches Done.
func Example_registerTwice() {
	url, key := registryFor("printer")
	ctx := context.Background()
	registry, err := client.New(client.Config{URLs: []string{url}, Token: key})
	if err != nil {
		panic(err)
	}
	defer registry.Close()
	if err := registry.DefineService(ctx, client.Service{Name: "printer"}); err != nil {
		panic(err)
	}
	register := func() *client.Registered {
		r, err := registry.Register(ctx, client.Registration{Service: "printer", Instance: "printer-1", URL: "http://10.0.0.7:8080", TTL: 2 * time.Second, Drain: -1})
		if err != nil {
			panic(err)
		}
		return r
	}
	first, second := register(), register() // a copied configuration
	<-first.Done()
	fmt.Println("the first ended:", client.Code(first.Err()))
	fmt.Println("the second goes on:", second.Err() == nil)
	fmt.Println(second.Close(ctx))
	// Output:
	// the first ended: STALE_INCARNATION
	// the second goes on: true
	// <nil>
}

// A watch gives the set at any time, and waits for another one.
func Example_watch() {
	url, key := registryFor("mailer")
	ctx := context.Background()
	registry, err := client.New(client.Config{URLs: []string{url}, Token: key})
	if err != nil {
		panic(err)
	}
	defer registry.Close()
	if err := registry.DefineService(ctx, client.Service{Name: "mailer"}); err != nil {
		panic(err)
	}
	watch, err := registry.Watch(ctx, "mailer")
	if err != nil {
		panic(err)
	}
	defer watch.Close()
	set := watch.Set()
	fmt.Println("instances:", len(set.Instances))

	mailer, err := registry.Register(ctx, client.Registration{Service: "mailer", Instance: "mailer-1", URL: "http://10.0.0.7:8080", Weight: 3})
	if err != nil {
		panic(err)
	}
	for len(set.Instances) == 0 {
		if set, err = watch.Next(ctx, set); err != nil {
			panic(err)
		}
	}
	fmt.Println(set.Instances[0].InstanceID, set.Instances[0].URL, set.Instances[0].Weight)
	fmt.Println("stale:", !set.Stale.IsZero())
	if err := mailer.Close(ctx); err != nil {
		panic(err)
	}
	// Output:
	// instances: 0
	// mailer-1 http://10.0.0.7:8080 3
	// stale: false
}

// For protocols other than HTTP, pick an instance and say how the call ended.
func Example_pick() {
	url, key := registryFor("cache")
	ctx := context.Background()
	registry, err := client.New(client.Config{URLs: []string{url}, Token: key})
	if err != nil {
		panic(err)
	}
	defer registry.Close()
	if err := registry.DefineService(ctx, client.Service{Name: "cache", Strategy: client.ConsistentHash}); err != nil {
		panic(err)
	}
	one, err := registry.Register(ctx, client.Registration{Service: "cache", Instance: "cache-1", URL: "http://10.0.0.7:6380"})
	if err != nil {
		panic(err)
	}
	defer one.Close(ctx)
	watch, err := registry.Watch(ctx, "cache")
	if err != nil {
		panic(err)
	}
	defer watch.Close()
	balancer, err := client.NewBalancer(watch, "") // as the service says
	if err != nil {
		panic(err)
	}
	pick, err := balancer.Pick("user-42")
	if err != nil {
		panic(err)
	}
	began := time.Now()
	fmt.Println("call", pick.Instance.URL)
	pick.Done(true, time.Since(began))
	// Output:
	// call http://10.0.0.7:6380
}
