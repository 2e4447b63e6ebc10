// The client of a Backplane registry. It requires nothing but the standard library.
module github.com/backplane-dev/backplane/client

go 1.26.0
