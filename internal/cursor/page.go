package cursor

import (
	"context"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/page"
)

// DecodeArgs returns the arguments of a page of events with their cursors, which the caller in ctx gave, in the
// plain form that the log reads.
func DecodeArgs(ctx context.Context, args page.Args) (page.Args, error) {
	var err error
	if args.After, err = decodeArg(ctx, "after", args.After); err != nil {
		return args, err
	}
	args.Before, err = decodeArg(ctx, "before", args.Before)
	return args, err
}

func decodeArg(ctx context.Context, name string, text *string) (*string, error) {
	if text == nil {
		return nil, nil
	}
	at, err := Decode(ctx, *text)
	if err != nil {
		return nil, fault.From(err).At(name)
	}
	plain := at.String()
	return &plain, nil
}

// EncodePage returns the page with the cursors that the client gets, those of its events.
func EncodePage(ctx context.Context, p page.Page[*event.Event]) page.Page[*event.Event] {
	p.Cursors = make([]string, len(p.Items))
	for i, e := range p.Items {
		p.Cursors[i] = Encode(ctx, e.Cursor)
	}
	return p
}
