package consumer

import (
	"github.com/backplane-dev/backplane/internal/entity"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// The codes of errors.
const (
	CodeDeadLetterNotFound fault.Code = "DEAD_LETTER_NOT_FOUND"
)

// DeadLetterEntity is the declaration of dead letters.
var DeadLetterEntity = entity.Declare(entity.Declaration{
	Name: "dead_letter", Kind: uid.KindDeadLetter,
	Codes: []fault.Meaning{
		{Code: CodeDeadLetterNotFound, Kind: fault.KindNotFound, Sentence: "There is no such dead letter, or it was replayed already."},
	},
})
