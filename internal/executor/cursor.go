package executor

import (
	"context"

	"github.com/99designs/gqlgen/graphql"
)

// The extensions by which a response of a subscription tells where it stands.
const (
	cursorKey   = "cursor"
	progressKey = "progress" // never leaves this package
)

// NoteCursor says in the response being made which place in the event log its
// client has reached with it. Clients find it in the extension cursor, event
// streams also in id:. Resolvers and hooks call it under the context of the
// response; the first call of a response counts.
func NoteCursor(ctx context.Context, cursor string) { note(ctx, cursorKey, cursor) }

// NoteProgress says that the response being made stands for no event: the
// client has seen all that it may see up to the cursor. Whatever else the
// response holds is dropped. Transports hand the cursor on when the stream is
// idle, so that a quiet stream does not fall behind the log's retention. Since
// it comes in the order of the events, none can be lost to it.
func NoteProgress(ctx context.Context, cursor string) {
	NoteCursor(ctx, cursor)
	note(ctx, progressKey, true)
}

func note(ctx context.Context, key string, value any) {
	if graphql.GetExtension(ctx, key) == nil {
		graphql.RegisterExtension(ctx, key, value)
	}
}

// progressOnly returns the response that NoteProgress asks for, or resp as it is.
func progressOnly(resp *graphql.Response) *graphql.Response {
	if resp.Extensions[progressKey] == nil {
		return resp
	}
	return &graphql.Response{Extensions: map[string]any{cursorKey: resp.Extensions[cursorKey]}}
}

// Cursor returns the cursor that a response carries, empty if none, and whether
// it carries nothing else.
func Cursor(resp *graphql.Response) (cursor string, only bool) {
	cursor, _ = resp.Extensions[cursorKey].(string)
	return cursor, cursor != "" && len(resp.Data) == 0 && len(resp.Errors) == 0
}
