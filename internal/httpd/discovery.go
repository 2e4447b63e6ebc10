package httpd

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
)

// discoveryPage is the pattern of the service discovery for Prometheus.
const discoveryPage = "GET /services/{name}/prometheus"

// Target is an instance of a service that a monitoring system may scrape.
type Target struct {
	InstanceID string
	URL        string
	Status     string
	Metadata   map[string]string
}

// targetGroup is an element of the list that Prometheus reads (http_sd_config).
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// serveDiscovery lists the instances of a service for the HTTP service discovery of Prometheus.
func (s *Server) serveDiscovery(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Targets == nil {
		return errPathNotFound()
	}
	caller, err := s.authenticateREST(r)
	if err != nil {
		return err
	}
	targets, err := s.deps.Targets(withPrincipal(r.Context(), caller), r.PathValue("name"))
	if err != nil {
		return err
	}
	groups := make([]targetGroup, 0, len(targets)) // an empty list, never null
	for _, t := range targets {
		group, err := newTargetGroup(r.PathValue("name"), t)
		if err != nil {
			return err
		}
		groups = append(groups, group)
	}
	text, err := json.Marshal(groups)
	if err != nil {
		return fmt.Errorf("write the targets of a service: %w", err)
	}
	w.Header().Set("Content-Type", "application/json") // Prometheus takes no other
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(text) // fails only with the connection
	return nil
}

var notInLabel = regexp.MustCompile(`[^a-zA-Z0-9_]`)

// newTargetGroup returns the group of one target, as the labels of targets differ. Labels that begin with __meta_ are
// for relabelling and are dropped after it.
func newTargetGroup(service string, t Target) (targetGroup, error) {
	u, err := url.Parse(t.URL)
	if err != nil {
		return targetGroup{}, fmt.Errorf("the URL of instance %s: %w", t.InstanceID, err)
	}
	labels := map[string]string{}
	for name, value := range t.Metadata {
		labels["__meta_backplane_metadata_"+notInLabel.ReplaceAllString(name, "_")] = value
	}
	maps.Copy(labels, map[string]string{
		"__scheme__":                u.Scheme,
		"__meta_backplane_service":  service,
		"__meta_backplane_instance": t.InstanceID,
		"__meta_backplane_status":   t.Status,
		"__meta_backplane_path":     u.Path,
	})
	return targetGroup{Targets: []string{hostPort(u)}, Labels: labels}, nil
}

// hostPort returns the host of the URL with its port, that of the scheme if it names none.
func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return u.Host + map[string]string{"http": ":80", "https": ":443"}[u.Scheme]
}
