package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
)

// maxAnswer bounds an answer of the registry, in bytes: fifty instances with all
// the metadata that they may have are less than half.
const maxAnswer = 8 << 20

// operation is a request for one field.
type operation struct {
	field string // that is asked for
	text  string // of the document
}

// answer is a response, and what is wrong with it.
type answer struct {
	Data   map[string]json.RawMessage `json:"data"`
	Errors []struct {
		Message    string `json:"message"`
		Extensions struct {
			Code string `json:"code"`
		} `json:"extensions"`
	} `json:"errors"`
}

// err returns the first error of the response.
func (a *answer) err() error {
	if len(a.Errors) == 0 {
		return nil
	}
	return &Error{Code: a.Errors[0].Extensions.Code, Message: a.Errors[0].Message}
}

// mutate calls a mutation with one input, and reads its payload into out. Each node is
// tried once: what is called like this may be called twice.
func (c *Client) mutate(ctx context.Context, op operation, input map[string]any, out any) error {
	return c.call(ctx, op, map[string]any{"in": input}, func(field json.RawMessage) error {
		var payload struct {
			UserErrors []struct {
				Code    string   `json:"code"`
				Message string   `json:"message"`
				Path    []string `json:"path"`
			} `json:"userErrors"`
		}
		if err := json.Unmarshal(field, &payload); err != nil {
			return err
		}
		if len(payload.UserErrors) > 0 {
			e := payload.UserErrors[0]
			return &Error{e.Code, e.Message, e.Path}
		}
		return json.Unmarshal(field, out)
	})
}

// call calls one node after the other until one can answer, and passes the field to read.
func (c *Client) call(ctx context.Context, op operation, vars map[string]any, read func(json.RawMessage) error) (err error) {
	for range c.cfg.URLs {
		node := c.currentNode()
		if err = c.callNode(ctx, node, op, vars, read); err == nil || !retryElsewhere(err) {
			return err
		}
		c.useNextNode(node)
		if ctx.Err() != nil {
			return contextError(ctx, err)
		}
	}
	return err
}

// callNode calls one node.
func (c *Client) callNode(ctx context.Context, node int, op operation, vars map[string]any, read func(json.RawMessage) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	resp, err := c.post(ctx, node, op.text, vars, "application/graphql-response+json", "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	a, err := readAnswer(resp)
	if err != nil {
		return err
	}
	if err := a.err(); err != nil {
		return err
	}
	return read(a.Data[op.field])
}

// post sends an operation to a node.
func (c *Client) post(ctx context.Context, node int, text string, vars map[string]any, accept, after string) (*http.Response, error) {
	body, err := json.Marshal(map[string]any{"query": text, "variables": vars})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.URLs[node]+"/graphql", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", accept)
	req.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	return c.cfg.HTTPClient.Do(req)
}

// readAnswer reads a whole response; one that is no GraphQL is an Error with its
// status.
func readAnswer(resp *http.Response) (*answer, error) {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxAnswer {
		return nil, fmt.Errorf("the response of the registry has more than %d bytes", maxAnswer)
	}
	var a answer
	if err := json.Unmarshal(text, &a); err == nil && (len(a.Errors) > 0 || resp.StatusCode == http.StatusOK && a.Data != nil) {
		return &a, nil
	}
	return nil, unexpectedResponse(resp)
}

// unexpectedResponse is the error for a response that is not what was asked for.
func unexpectedResponse(resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return errors.New("the response is not one of a registry")
	}
	return &Error{Code: codeHTTP + strconv.Itoa(resp.StatusCode), Message: http.StatusText(resp.StatusCode)}
}

func isEventStream(resp *http.Response) bool {
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && media == "text/event-stream"
}
