package graph

import _ "embed"

// SDL is the whole schema as one text in the schema definition language, for tools that generate
// code of it. A test holds it equal to what is served.
//
//go:embed schema.graphql
var SDL []byte
