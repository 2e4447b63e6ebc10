package user

import (
	"slices"
	"strings"
	"unicode"

	"github.com/mtibben/confusables"
	"golang.org/x/text/unicode/norm"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// reserved holds the skeletons of names that readers take for the operator's, some also as Cyrillic and Greek
// transcribe them; only STAFF and ADMIN may have them.
var reserved = skeletons(
	"admin", "administrator", "moderator", "operator", "root", "staff", "superuser", "support", "sysadmin", "system",
	"админ", "администратор", "модератор", "αδμιν", "ροοτ",
)

func skeletons(names ...string) map[string]bool {
	out := make(map[string]bool, len(names))
	for _, name := range names {
		out[Skeleton(name)] = true
	}
	return out
}

// UsernameTaken is the error for a user name that another account has, that is reserved, or that is confusable
// with such a name: one error, so that it does not say whose name it is.
func UsernameTaken() *fault.Error {
	return fault.New(CodeUsernameTaken, "This user name is taken.").At("username")
}

// Named is a user name and the account that has it.
type Named struct {
	ID       uid.User
	Username string
}

// CheckConfusable returns UsernameTaken if the user name of u is confusable with that of another of the accounts,
// which are those with STAFF or ADMIN.
func (u *User) CheckConfusable(staff []Named) error {
	skeleton := Skeleton(u.Username)
	for _, other := range staff {
		if other.ID != u.ID && Skeleton(other.Username) == skeleton {
			return UsernameTaken()
		}
	}
	return nil
}

// checkReserved refuses a reserved user name to accounts without STAFF and ADMIN, unless it is the stored one.
func (u *User) checkReserved(stored string) error {
	if u.Username == stored || IsStaff(u.Roles) || !reserved[Skeleton(u.Username)] {
		return nil
	}
	return UsernameTaken()
}

// IsStaff reports whether the roles hold STAFF or ADMIN.
func IsStaff(roles []auth.Role) bool {
	return slices.Contains(roles, auth.Staff) || slices.Contains(roles, auth.Admin)
}

// Skeleton returns what two user names have in common that look alike: the skeleton of UTS 39 without regard to case
// and combining accents, in which i is l, as capital I is. It is for comparison only, and is not stored: the tables
// of Unicode change.
func Skeleton(name string) string {
	shown := replaceConfusables(norm.NFKD.String(name)) // the letters as they are shown, in Latin ones where they look so
	return strings.ReplaceAll(replaceConfusables(norm.NFKD.String(UsernameKey(shown))), "i", "l")
}

// replaceConfusables replaces each letter by its skeleton, without accents. A letter whose skeleton is not ASCII gets
// that of its other case if that one is: UTS 39 maps the Cyrillic Т to T, but not т to t.
func replaceConfusables(s string) string {
	var b strings.Builder
	for _, r := range s {
		skeleton := letterSkeleton(r)
		if !isASCII(skeleton) {
			if other := letterSkeleton(otherCase(r)); isASCII(other) {
				skeleton = other
			}
		}
		b.WriteString(skeleton)
	}
	return b.String()
}

func letterSkeleton(r rune) string {
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) && unicode.Is(unicode.Inherited, r) {
			return -1
		}
		return r
	}, confusables.Skeleton(string(r)))
}

func otherCase(r rune) rune {
	if unicode.IsUpper(r) {
		return unicode.ToLower(r)
	}
	return unicode.ToUpper(r)
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}
