package httpd

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
	"github.com/backplane-dev/backplane/internal/problem"
)

// serveGraphQL answers by the GraphQL over HTTP specification, or serves a stream.
func (s *Server) serveGraphQL(w http.ResponseWriter, r *http.Request) error {
	if serve := s.streamHandler(r); serve != nil {
		return serve(w, r)
	}
	if s.isForPage(r) {
		w.Header().Set("Vary", "Accept")
		w.Header().Set("Location", "./") // relative: a proxy may strip a prefix of the path
		w.WriteHeader(http.StatusSeeOther)
		return nil
	}
	media, err := negotiate(r)
	if err != nil {
		return err
	}
	ctx, err := s.authenticate(w, r)
	if err != nil {
		return err
	}
	key, err := idempotencyHeader(r)
	if err != nil {
		return err
	}
	ctx, grant := s.openMemory(ctx)
	defer grant.Release() // once the response is written
	in, err := s.readRequests(w, r.WithContext(ctx))
	if err != nil {
		return err
	}
	c := graphQLCall{s: s, r: r, media: media, idempotencyKey: key}
	return s.inSlot(ctx, w, func(w http.ResponseWriter) error {
		if in.batch {
			return c.answerBatch(ctx, w, in.requests)
		}
		return c.answer(ctx, w, in.requests[0])
	})
}

// graphQLCall is one HTTP request that asks for one or more operations.
type graphQLCall struct {
	s              *Server
	r              *http.Request
	media          mediaType
	idempotencyKey string // empty for none
}

func (c graphQLCall) answer(ctx context.Context, w http.ResponseWriter, req executor.Request) error {
	resp, refusal, err := c.run(ctx, req)
	switch {
	case err != nil:
		return err
	case refusal != nil:
		c.s.writeJSON(w, c.r, c.media.refusalStatus(refusal.Stage), c.media, errorBody{refusal.Errors})
	default:
		body, status := jsoncodec.NewResponse(resp), responseStatus(ctx, resp)
		body.OmitData = status != http.StatusOK // a response with data has a status of success
		c.s.writeJSON(w, c.r, status, c.media, body)
	}
	return nil
}

// responseStatus returns the status of a response. It is that of the first error if the operation failed as a
// whole, for a reason that is not the document's: the server was not able, or the caller's credential was refused and
// there is nothing for an anonymous caller. So clients and proxies that look at no body repeat the
// request, count it, or renew the credential.
func responseStatus(ctx context.Context, resp *graphql.Response) int {
	if len(resp.Errors) == 0 {
		return http.StatusOK
	}
	var refused fault.Code
	if err := auth.Refused(ctx); err != nil {
		refused = fault.From(err).Code
	}
	for _, e := range resp.Errors {
		code := codeOf(e)
		switch kind := code.Kind(); {
		case refused != "" && code == refused, kind == fault.KindUnavailable, kind == fault.KindTimeout, kind == fault.KindInternal:
		default:
			return http.StatusOK
		}
	}
	if hasData(resp.Data) {
		return http.StatusOK
	}
	return problem.Status(codeOf(resp.Errors[0]).Kind())
}

func codeOf(e *gqlerror.Error) fault.Code {
	code, _ := e.Extensions["code"].(string)
	return fault.Code(code)
}

// hasData reports whether a root field of the data has a value.
func hasData(data []byte) bool {
	var roots map[string]json.RawMessage
	if len(data) > 0 && json.Unmarshal(data, &roots) != nil {
		return true
	}
	for _, value := range roots {
		if string(value) != "null" {
			return true
		}
	}
	return false
}

// answerBatch runs the operations of an array one after the other. The error of one of them
// stands at its index.
func (c graphQLCall) answerBatch(ctx context.Context, w http.ResponseWriter, reqs []executor.Request) error {
	if c.idempotencyKey != "" {
		return errAmbiguousKey()
	}
	bodies := make([]any, len(reqs))
	for i, req := range reqs {
		resp, refusal, err := c.run(ctx, req)
		switch {
		case err != nil:
			c.s.reportError(ctx, err)
			bodies[i] = errorBody{executor.NewRefusal(err).Errors}
		case refusal != nil:
			bodies[i] = errorBody{refusal.Errors}
		default:
			bodies[i] = jsoncodec.NewResponse(resp)
		}
	}
	c.s.writeJSON(w, c.r, http.StatusOK, mediaJSON, bodies)
	return nil
}

// run prepares and runs one operation. One of its results is set: err is for a request that
// HTTP refuses by itself.
func (c graphQLCall) run(ctx context.Context, req executor.Request) (*graphql.Response, *executor.Refusal, error) {
	op, refusal := c.s.exec.Prepare(ctx, req)
	if refusal != nil {
		return nil, refusal, nil
	}
	noteOperation(ctx, op)
	switch {
	case op.Kind() == ast.Subscription:
		return nil, nil, fault.New(fault.BadRequest, "A subscription needs a transport that streams: a WebSocket, or the media type text/event-stream.")
	case op.Kind() == ast.Mutation && c.r.Method != http.MethodPost:
		return nil, nil, errMutationByGet()
	case c.idempotencyKey != "" && op.Kind() == ast.Mutation && op.RootFields() != 1:
		return nil, nil, errAmbiguousKey()
	case c.idempotencyKey != "" && op.Kind() == ast.Mutation:
		ctx = executor.WithIdempotencyKey(ctx, c.idempotencyKey)
	}
	resp, err := c.s.exec.Run(ctx, op)
	return resp, nil, err
}

func errMutationByGet() error {
	return errMethodNotAllowed("A mutation must be sent by POST.", http.MethodPost)
}

func idempotencyHeader(r *http.Request) (string, error) {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", errAmbiguousKey()
	}
	return values[0], executor.CheckIdempotencyKey(values[0])
}

func errAmbiguousKey() error {
	return fault.New(fault.IdempotencyKeyInvalid, "One Idempotency-Key is for one request with exactly one mutation field.")
}
