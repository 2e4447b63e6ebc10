package validate

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// MaxSortKey bounds a sort key in bytes: names that are equal up to there are sorted by their ids.
const MaxSortKey = 512

// unaccented spells letters of Latin that Unicode does not decompose.
var unaccented = strings.NewReplacer("ø", "o", "ł", "l", "đ", "d", "ð", "d", "ħ", "h", "ŧ", "t", "ı", "i", "æ", "ae", "œ", "oe", "þ", "th")

// SortKey returns what a name is sorted by, whatever its case, its accents and the way it is
// composed: Éclair, eis, Étui, Zebra. A change of it needs a migration that writes the stored keys
// again.
func SortKey(name string) string {
	decomposed := norm.NFKD.String(strings.TrimSpace(name))
	bare := strings.Map(func(r rune) rune {
		if r >= '\u0300' && r <= '\u036F' { // the marks of Latin, Greek and Cyrillic letters
			return -1
		}
		return r
	}, decomposed)
	key := norm.NFC.String(unaccented.Replace(cases.Fold().String(bare)))
	if len(key) <= MaxSortKey {
		return key
	}
	end := MaxSortKey
	for !utf8.RuneStart(key[end]) {
		end--
	}
	return key[:end]
}
