#!/bin/sh
# Fetches the files of GraphiQL that the server embeds, in the versions that
# README.md names, and compresses them so that equal input gives equal files.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() { # package version, then pairs of a file in it and its name here
	(cd "$work" && npm pack --silent "$1@$2" >/dev/null && mkdir "$1" && tar xzf "$1-$2.tgz" -C "$1" --strip-components=1)
	package=$1
	shift 2
	while [ $# -gt 0 ]; do
		grep -v '^//# sourceMappingURL=' "$work/$package/$1" | gzip -9 -n >"$2.gz"
		shift 2
	done
	cp "$work/$package/LICENSE" "LICENSE.$package"
}

fetch graphiql 3.9.0 graphiql.min.js graphiql.js graphiql.min.css graphiql.css
fetch react 18.3.1 umd/react.production.min.js react.js
fetch react-dom 18.3.1 umd/react-dom.production.min.js react-dom.js
