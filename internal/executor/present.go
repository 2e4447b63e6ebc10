package executor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/requestlog"
)

// maxMessage bounds the text of an error in bytes: messages of the parser and the rules
// repeat text of the client, whose length is not limited.
const maxMessage = 300

// truncate returns at most maxMessage bytes of s, whole characters only.
func truncate(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	cut := maxMessage
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// presentDocumentError prepares an error of the parser or a rule for the client:
// bounded, with a code, and without the rule's name.
func presentDocumentError(err *gqlerror.Error, code fault.Code) *gqlerror.Error {
	err.Message, err.Rule = truncate(strings.ToValidUTF8(err.Message, "\uFFFD")), ""
	if err.Extensions == nil {
		err.Extensions = map[string]any{"code": string(code)}
	}
	return err
}

// locatedError is an error with its position in the document.
type locatedError struct {
	cause *fault.Error
	pos   *ast.Position
}

func (e locatedError) Error() string { return e.cause.Error() }
func (e locatedError) Unwrap() error { return e.cause }

func atPosition(err *fault.Error, pos *ast.Position) error {
	if pos == nil {
		return err
	}
	return locatedError{err, pos}
}

// refuseAt returns a Refusal with one error.
func refuseAt(stage Stage, err error) *Refusal {
	shown := presentError(fault.From(err))
	if c, ok := errors.AsType[costError](err); ok {
		shown.Extensions["cost"], shown.Extensions["maxCost"] = c.cost, c.limit
	}
	if l, ok := errors.AsType[locatedError](err); ok {
		shown.Locations = []gqlerror.Location{{Line: l.pos.Line, Column: l.pos.Column}}
	}
	return &Refusal{stage, gqlerror.List{shown}}
}

// refuseAllAt returns a Refusal with every error that is joined in err.
func refuseAllAt(stage Stage, err error) *Refusal {
	r := &Refusal{Stage: stage}
	for _, f := range fault.All(err) {
		r.Errors = append(r.Errors, presentError(f))
	}
	return r
}

// NewRefusal returns a Refusal for an error that a transport found in the request.
func NewRefusal(err error) *Refusal { return refuseAt(StageRequest, err) }

// presentError returns an error as every GraphQL transport sends it: its message, its
// code, the path to the input at fault and the seconds to wait, if any. The error
// itself stays attached, unseen by clients, for transports with another format.
func presentError(f *fault.Error) *gqlerror.Error {
	ext := map[string]any{"code": string(f.Code)}
	if len(f.Path) > 0 {
		ext["path"] = f.Path
	}
	if f.RetryAfter > 0 {
		ext["retryAfter"] = int(math.Ceil(f.RetryAfter.Seconds()))
	}
	return &gqlerror.Error{Err: f, Message: f.Message, Extensions: ext}
}

func tooManyErrors(limit int) *fault.Error {
	return fault.New(fault.TooManyErrors, "There are more than %d errors; the others are not shown.", limit)
}

// presenter presents the errors of one response. It reports each error once, to the log and to onError,
// though many fields may have it.
type presenter struct {
	log     *slog.Logger
	limit   int
	onError func(context.Context, error) // nil for none

	mu       sync.Mutex
	shown    int
	reported map[string]bool
}

func (p *presenter) presentError(ctx context.Context, err error) *gqlerror.Error {
	switch n := p.countError(); {
	case n == p.limit+1:
		return presentError(tooManyErrors(p.limit))
	case n > p.limit:
		return nil // gqlgen leaves the error out
	}
	shown := graphql.DefaultErrorPresenter(ctx, err)
	cause := shown.Err // without the path, so that equal causes compare equal
	if cause == nil {
		cause = errors.New(shown.Message)
	}
	f := fault.From(cause)
	out := presentError(f)
	out.Path, out.Locations = shown.Path, shown.Locations
	p.reportOnce(ctx, f, cause, shown.Path)
	if f.Kind() == fault.KindInternal {
		if id := requestlog.RequestID(ctx); id != "" {
			out.Extensions["requestId"] = id
		}
	}
	return out
}

func (p *presenter) countError() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shown++
	return p.shown
}

// reportOnce reports the error that f is found in.
func (p *presenter) reportOnce(ctx context.Context, f *fault.Error, err error, path ast.Path) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := f.Error()
	if p.reported[key] {
		return
	}
	p.reported[key] = true
	f.Report(ctx, p.log, "path", path.String())
	if p.onError != nil {
		p.onError(ctx, err)
	}
}

// recoverPanic turns a panic into an internal error that carries the stack, for the
// log.
func recoverPanic(_ context.Context, cause any) error {
	return fault.From(fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
}
