package client_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/backplane-dev/backplane/client"
)

// A service defines itself, registers its instance, answers the health checks of the registry, calls
// another service, and leaves the registry before it stops.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	registry, err := client.New(client.Config{URLs: []string{"http://10.0.0.1:8080", "http://10.0.0.2:8080"}, Token: os.Getenv("REGISTRY_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	defer registry.Close()

	// Serve, and be found.
	health, err := client.NewHealth(client.HealthConfig{})
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/healthz", health)
	go http.ListenAndServe(":9000", nil)
	if err := registry.DefineService(ctx, client.Service{Name: "till", HealthCheck: &client.HealthCheck{Path: "/healthz"}}); err != nil {
		log.Fatal(err)
	}
	me, err := registry.Register(ctx, client.Registration{Service: "till", Instance: "till-1", URL: "http://10.0.0.7:9000"})
	if err != nil {
		log.Fatal(err)
	}

	// Call another service.
	watch, err := registry.Watch(ctx, "printer")
	if err != nil {
		log.Fatal(err)
	}
	defer watch.Close()
	balancer, err := client.NewBalancer(watch, "") // by the strategy of the service
	if err != nil {
		log.Fatal(err)
	}
	transport, err := client.NewTransport(balancer, client.TransportConfig{})
	if err != nil {
		log.Fatal(err)
	}
	printer := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	resp, err := printer.Get("http://printer/status")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()

	// Drain and leave the registry, then stop serving.
	<-ctx.Done()
	health.SetDraining(true)
	me.Close(context.Background())
}

// A Health handler says by its status whether the instance may be called.
func ExampleHealth() {
	health, err := client.NewHealth(client.HealthConfig{
		Timeout: 500 * time.Millisecond,
		Checks: map[string]client.Check{
			"queue": func(context.Context) error { return fmt.Errorf("10.0.0.3 refused the password") }, // is not shown
		},
	})
	if err != nil {
		panic(err)
	}
	w := httptest.NewRecorder()
	health.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
	fmt.Print(w.Code, " ", w.Body)
	// Output:
	// 503 {"status":"failing","failing":["queue"]}
}
