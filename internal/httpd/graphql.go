package httpd

import (
	"context"
	"net/http"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
)

// serveGraphQL answers by the GraphQL over HTTP specification.
func (s *Server) serveGraphQL(w http.ResponseWriter, r *http.Request) {
	if s.serveStream(w, r) {
		return
	}
	out, err := negotiate(r)
	if err != nil {
		s.refuse(w, r, mediaJSON, err)
		return
	}
	ctx, err := s.authenticate(r)
	if err != nil {
		s.refuse(w, r, out, err)
		return
	}
	key, err := idempotencyHeader(r)
	if err != nil {
		s.refuse(w, r, out, err)
		return
	}
	in, err := s.read(w, r)
	if err != nil {
		s.refuse(w, r, out, err)
		return
	}
	c := call{s: s, r: r, media: out, key: key}
	err = s.inSlot(ctx, w, func(w http.ResponseWriter) {
		if in.batch {
			c.answerAll(ctx, w, in.requests)
			return
		}
		c.answer(ctx, w, in.requests[0])
	})
	if err != nil {
		s.refuse(w, r, out, err)
	}
}

// call is one HTTP request that asks for one or more operations.
type call struct {
	s     *Server
	r     *http.Request
	media mediaType
	key   string // of idempotency, or empty
}

func (c call) answer(ctx context.Context, w http.ResponseWriter, req executor.Request) {
	resp, refusal, err := c.run(ctx, req)
	switch {
	case err != nil:
		c.s.refuse(w, c.r, c.media, err)
	case refusal != nil:
		c.s.write(w, c.r, c.media.refusalStatus(refusal.Stage), c.media, body{Errors: refusal.Errors})
	default:
		c.s.write(w, c.r, http.StatusOK, c.media, jsoncodec.NewResponse(resp))
	}
}

// answerAll runs the operations of an array one after the other. What is wrong
// with one of them is said in its place.
func (c call) answerAll(ctx context.Context, w http.ResponseWriter, reqs []executor.Request) {
	if c.key != "" {
		c.s.refuse(w, c.r, c.media, errKeyAmbiguous())
		return
	}
	bodies := make([]any, len(reqs))
	for i, req := range reqs {
		resp, refusal, err := c.run(ctx, req)
		switch {
		case err != nil:
			bodies[i] = body{Errors: executor.Refuse(err).Errors}
		case refusal != nil:
			bodies[i] = body{Errors: refusal.Errors}
		default:
			bodies[i] = jsoncodec.NewResponse(resp)
		}
	}
	c.s.write(w, c.r, http.StatusOK, mediaJSON, bodies)
}

// run prepares and runs one operation. Of its results one is set: err is a
// request that HTTP refuses by itself.
func (c call) run(ctx context.Context, req executor.Request) (*graphql.Response, *executor.Refusal, error) {
	op, refusal := c.s.exec.Prepare(ctx, req)
	if refusal != nil {
		return nil, refusal, nil
	}
	noteOperation(ctx, op)
	switch {
	case op.Kind() == ast.Subscription:
		return nil, nil, fault.New(fault.Invalid, fault.BadRequest, "A subscription needs a transport that streams: a WebSocket, or the media type text/event-stream.")
	case op.Kind() == ast.Mutation && c.r.Method != http.MethodPost:
		return nil, nil, errMutationByGet()
	case c.key != "" && op.Kind() == ast.Mutation && op.RootFields() != 1:
		return nil, nil, errKeyAmbiguous()
	case c.key != "" && op.Kind() == ast.Mutation:
		ctx = executor.WithIdempotencyKey(ctx, c.key)
	}
	return c.s.exec.Run(ctx, op), nil, nil
}

func errMutationByGet() error { return errMethod("A mutation must be sent by POST.", http.MethodPost) }

func idempotencyHeader(r *http.Request) (string, error) {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", errKeyAmbiguous()
	}
	return values[0], executor.CheckIdempotencyKey(values[0])
}

func errKeyAmbiguous() error {
	return fault.New(fault.Invalid, fault.IdempotencyKeyInvalid, "One Idempotency-Key is for one request with exactly one mutation field.")
}
