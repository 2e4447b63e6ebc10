package executor

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/backplane-dev/backplane/internal/fault"
)

// resolveText returns the text of the document: the text sent, or the text stored under
// the hash sent, by the protocol of automatic persisted queries. persist is the hash
// under which the caller stores the text once the document is valid.
func (p *Preparer) resolveText(req Request) (query, persist string, refusal *Refusal) {
	hash, asked, err := persistedHash(req.Extensions)
	switch {
	case err != nil:
		return "", "", NewRefusal(err)
	case !asked && strings.TrimSpace(req.Query) == "":
		return "", "", NewRefusal(fault.New(fault.BadRequest, "The request has no query."))
	case !asked:
		return req.Query, "", nil
	case req.Query == "":
		return p.persistedText(hash)
	}
	if sum := sha256.Sum256([]byte(req.Query)); hex.EncodeToString(sum[:]) != hash {
		return "", "", NewRefusal(fault.New(fault.PersistedQueryMismatch, "The hash of the persisted query is not that of the query sent."))
	}
	return req.Query, hash, nil
}

func (p *Preparer) persistedText(hash string) (query, persist string, refusal *Refusal) {
	query, ok := p.persisted.get(hash)
	if !ok {
		// Clients of this protocol match this exact text.
		return "", "", refuseAt(StageSelect, fault.New(fault.PersistedQueryNotFound, "PersistedQueryNotFound"))
	}
	return query, "", nil
}

// persistedHash reads extensions.persistedQuery; asked is false if there is none.
func persistedHash(extensions map[string]any) (hash string, asked bool, err error) {
	v, asked := extensions["persistedQuery"]
	if !asked || v == nil {
		return "", false, nil
	}
	query, _ := v.(map[string]any)
	hash, _ = query["sha256Hash"].(string)
	version, _ := query["version"].(json.Number)
	if _, err := hex.DecodeString(hash); err != nil || len(hash) != hex.EncodedLen(sha256.Size) || version != "1" {
		return "", false, fault.New(fault.BadRequest, "extensions.persistedQuery needs version 1 and a sha256Hash of 64 hexadecimal digits.")
	}
	return strings.ToLower(hash), true, nil
}
