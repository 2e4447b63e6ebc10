#!/bin/sh
# Fetches the files of Swagger UI that the server embeds, in the version that
# README.md names, and compresses them so that equal input gives equal files.
set -eu
cd "$(dirname "$0")"
version=5.35.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(cd "$work" && npm pack --silent "swagger-ui-dist@$version" >/dev/null && tar xzf "swagger-ui-dist-$version.tgz")
for name in swagger-ui-bundle.js swagger-ui.css; do
	grep -v 'sourceMappingURL=' "$work/package/$name" | gzip -9 -n >"$name.gz"
done
cp "$work/package/LICENSE" LICENSE.swagger-ui
cp "$work/package/NOTICE" NOTICE.swagger-ui
cp "$work/package/swagger-ui-bundle.js.LICENSE.txt" LICENSE.bundled
