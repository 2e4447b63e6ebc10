package rest

import (
	"net/url"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/page"
)

func TestTotalText_says_that_there_are_more(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0", 7: "7", page.MaxCount: "10000", page.MaxCount + 1: ">10000"} {
		if got := totalText(n); got != want {
			t.Errorf("totalText(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestPageLinks_go_on_by_cursor_behind_what_can_be_counted(t *testing.T) {
	t.Parallel()
	end := "END"
	for _, tt := range []struct {
		walk walk
		info pageInfo
		want string
	}{
		{walk{"page", true, 9950, 50}, pageInfo{HasNextPage: true, EndCursor: &end, total: page.MaxCount + 1},
			`</users?page=201>; rel="next", </users?page=199>; rel="prev", </users?page=1>; rel="first"`},
		{walk{"page", true, 10_000, 50}, pageInfo{HasNextPage: true, EndCursor: &end, total: page.MaxCount + 1},
			`</users?cursor=END>; rel="next", </users?page=200>; rel="prev", </users?page=1>; rel="first"`},
		{walk{"offset", false, 7, 5}, pageInfo{HasNextPage: true, EndCursor: &end, total: 15},
			`</users?offset=12>; rel="next", </users?offset=2>; rel="prev", </users?offset=0>; rel="first", </users?offset=10>; rel="last"`},
		{walk{"offset", false, 900, 5}, pageInfo{HasPreviousPage: true, total: 11},
			`</users?offset=10>; rel="prev", </users?offset=0>; rel="first", </users?offset=10>; rel="last"`},
	} {
		l := &pageLinks{path: "/users", query: url.Values{}, names: map[string]string{"first": "limit", "after": "cursor"}}
		l.addNumbered(&tt.walk, &tt.info)
		if got := strings.Join(l.links, ", "); got != tt.want {
			t.Errorf("from %+v:\n got %s\nwant %s", tt.walk, got, tt.want)
		}
	}
}
