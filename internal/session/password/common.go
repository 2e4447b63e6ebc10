package password

import (
	_ "embed" // for the list of words
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

//go:embed common.txt
var commonText string

// commonWords are what common passwords are made of. The two letter maps are of the ways to write them.
var (
	commonWords = parseWords(commonText)
	substitutes = [2]*strings.Replacer{
		strings.NewReplacer("0", "o", "1", "i", "3", "e", "4", "a", "5", "s", "7", "t", "@", "a", "$", "s", "!", "i"),
		strings.NewReplacer("0", "o", "1", "l", "3", "e", "4", "a", "5", "s", "7", "t", "@", "a", "$", "s", "!", "l"),
	}
)

// Bounds of what a guess covers: longer passwords, and those of more words, are no longer among the first.
const (
	maxGuessed = 40 // characters
	maxWords   = 3
)

func parseWords(text string) map[string]bool {
	words := map[string]bool{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		for w := range strings.FieldsSeq(line) {
			words[w] = true
		}
	}
	return words
}

// CheckNew returns PASSWORD_INVALID, at password, for a password that an account may not be given: besides
// what Normalize refuses, those that attackers try first. These are repetitions and sequences, and up to
// three common words or names of the account, in any case, with digits and punctuation around them and
// with the usual substitutes for letters. names are the user name, the email address and the name of the
// account; a part of an address before the @ counts as a name, too.
//
// It is not asked when a password is verified: an account keeps the one that it has.
func CheckNew(password string, names ...string) error {
	normalized, err := Normalize(password)
	if err != nil {
		return err
	}
	text := fold(normalized)
	if len([]rune(text)) > maxGuessed {
		return nil
	}
	if isPattern(lettersAndDigits(text)) {
		return errInvalid("it is among the first that attackers try")
	}
	own := map[string]bool{}
	for _, n := range names {
		local, _, _ := strings.Cut(n, "@")
		for _, part := range append(strings.Fields(n), n, local) {
			if w := lettersAndDigits(fold(part)); w != "" {
				own[w], own[reverse(w)] = true, true
			}
		}
	}
	for _, spelling := range spellings(text) {
		switch {
		case own[spelling] || isMadeOf(spelling, own):
			return errInvalid("it is made of the names of the account")
		case isMadeOf(spelling, commonWords, own):
			return errInvalid("it is among the first that attackers try")
		}
	}
	return nil
}

// fold returns the text without the differences of case and of composition.
func fold(s string) string { return norm.NFKC.String(strings.ToLower(s)) }

// spellings returns the words that the text may stand for: as it is and with substitutes for letters
// undone, each without the digits and the punctuation around it, and with its digits.
func spellings(text string) []string {
	bare := strings.TrimFunc(text, func(r rune) bool { return !unicode.IsLetter(r) })
	all := []string{lettersAndDigits(text), lettersAndDigits(bare)}
	for _, s := range substitutes {
		all = append(all, lettersAndDigits(s.Replace(bare)), lettersAndDigits(s.Replace(text)),
			lettersAndDigits(s.Replace(strings.TrimRightFunc(text, func(r rune) bool { return !unicode.IsLetter(r) }))))
	}
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

func lettersAndDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return -1
	}, s)
}

func reverse(s string) string {
	r := []rune(s)
	slices.Reverse(r)
	return string(r)
}

// isMadeOf reports whether the text is a sequence of at most maxWords words, digits between them aside.
func isMadeOf(text string, lists ...map[string]bool) bool {
	return isSequence(text, maxWords, lists)
}

func isSequence(text string, left int, lists []map[string]bool) bool {
	text = strings.TrimLeftFunc(text, unicode.IsDigit)
	if text == "" {
		return left < maxWords
	}
	if left == 0 {
		return false
	}
	for end := 1; end <= len(text); end++ {
		word := text[:end]
		if slices.ContainsFunc(lists, func(words map[string]bool) bool { return words[word] }) && isSequence(text[end:], left-1, lists) {
			return true
		}
	}
	return false
}

// rows are what fingers and minds run along, there and back, over and over.
var rows = []string{"1234567890", "0987654321", "qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertyuiopasdfghjklzxcvbnm", "qwertzuiop", "yxcvbnm", "azertyuiop", "qsdfghjklm", "wxcvbn", "abcdefghijklmnopqrstuvwxyz", "1qaz2wsx3edc4rfv5tgb6yhn7ujm", "1q2w3e4r5t6y7u8i9o0p"}

// maxUnit is the length of the longest part whose repetition makes a pattern: a date, a short word.
const maxUnit = 5

// isPattern reports whether the text repeats a short part, or runs along a row of keys or the alphabet.
func isPattern(text string) bool {
	r := []rune(text)
	for unit := 1; unit <= maxUnit && unit < len(r); unit++ {
		repeats := true
		for i := unit; i < len(r) && repeats; i++ {
			repeats = r[i] == r[i-unit]
		}
		if repeats {
			return true
		}
	}
	return slices.ContainsFunc(rows, func(row string) bool {
		return strings.Contains(row+row+row, text) || strings.Contains(reverse(row+row+row), text)
	}) || len(r) == 0
}
