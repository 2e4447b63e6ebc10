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

// maxMessage bounds the text of an error in bytes: the messages of parser and
// rules repeat what the client wrote, which has no limit of its own.
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

// shorten makes an error of the parser or a rule fit to be shown: bounded, with
// a code, and without the rule's name.
func shorten(err *gqlerror.Error, code fault.Code) *gqlerror.Error {
	err.Message, err.Rule = truncate(strings.ToValidUTF8(err.Message, "\uFFFD")), ""
	if err.Extensions == nil {
		err.Extensions = map[string]any{"code": string(code)}
	}
	return err
}

// located is an error with its place in the document.
type located struct {
	cause *fault.Error
	pos   *ast.Position
}

func (e located) Error() string { return e.cause.Error() }
func (e located) Unwrap() error { return e.cause }

func at(err *fault.Error, pos *ast.Position) error {
	if pos == nil {
		return err
	}
	return located{err, pos}
}

// refuse makes a Refusal of one error.
func refuse(stage Stage, err error) *Refusal {
	shown := present(fault.From(err))
	if l, ok := errors.AsType[located](err); ok {
		shown.Locations = []gqlerror.Location{{Line: l.pos.Line, Column: l.pos.Column}}
	}
	return &Refusal{stage, gqlerror.List{shown}}
}

// refuseAll makes a Refusal of every error that is joined in err.
func refuseAll(stage Stage, err error) *Refusal {
	r := &Refusal{Stage: stage}
	for _, f := range fault.All(err) {
		r.Errors = append(r.Errors, present(f))
	}
	return r
}

// Refuse makes a Refusal of an error that a transport found in the request.
func Refuse(err error) *Refusal { return refuse(StageRequest, err) }

// present shows an error as every transport of GraphQL shows it: its message,
// its code, the path to the input at fault and the seconds to wait, if any. The
// error itself stays with it, unseen by clients, for transports that show it in
// another way.
func present(f *fault.Error) *gqlerror.Error {
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
	return fault.New(fault.Invalid, fault.TooManyErrors, "There are more than %d errors; the others are not shown.", limit)
}

// presenter shows the errors of one response. Each internal error is logged
// once, though it may be the answer to many fields.
type presenter struct {
	log   *slog.Logger
	limit int

	mu     sync.Mutex
	shown  int
	logged map[string]bool
}

func (p *presenter) present(ctx context.Context, err error) *gqlerror.Error {
	switch n := p.count(); {
	case n == p.limit+1:
		return present(tooManyErrors(p.limit))
	case n > p.limit:
		return nil // gqlgen leaves the error out
	}
	shown := graphql.DefaultErrorPresenter(ctx, err)
	cause := shown.Err // without the path, so that equal causes are seen to be equal
	if cause == nil {
		cause = errors.New(shown.Message)
	}
	f := fault.From(cause)
	out := present(f)
	out.Path, out.Locations = shown.Path, shown.Locations
	p.report(ctx, f, shown.Path)
	if f.Kind == fault.Internal {
		if id := requestlog.RequestID(ctx); id != "" {
			out.Extensions["requestId"] = id
		}
	}
	return out
}

func (p *presenter) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shown++
	return p.shown
}

func (p *presenter) report(ctx context.Context, f *fault.Error, path ast.Path) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if key := f.Error(); !p.logged[key] {
		p.logged[key] = true
		f.Report(ctx, p.log, "path", path.String())
	}
}

// recovered turns a panic into an internal error that carries the stack, for
// the log.
func recovered(_ context.Context, cause any) error {
	return fault.From(fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
}
