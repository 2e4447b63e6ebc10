# Only Go and make are needed for `make run` and `make test`. The client is a module of its own, which ./...
# leaves out: CLIENT names its packages.
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
RUNNER   := go run ./internal/testenv/run --
LINTER   := .ci/cache/golangci-lint
CLIENT   := github.com/backplane-dev/backplane/client/...
FUZZTIME ?= 3s
# Tests mostly wait, for servers and for time to pass: twice as many as there are processors run at a time in each package.
PARALLEL := $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2))))
CHECKS   := test format vet lint generated recipe race fuzz vulnerabilities

.DEFAULT_GOAL := help
.PHONY: help build run demo test race services soak bench benchmarks fuzz conformance generate fmt format vet lint generated recipe vulnerabilities check checks clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

build: ## build the static binary bin/backplane
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X github.com/backplane-dev/backplane/internal/cli.version=$(VERSION)' -o bin/backplane .

run: build ## serve demo data on http://127.0.0.1:8080, kept in data/
	bin/backplane serve --demo

demo: ## show payments with two services, one of which is killed: ends by itself
	go run ./examples/demo

test: ## run all tests, with private servers if there are any; says what it left out
	$(RUNNER) go test -json -parallel $(PARALLEL) -timeout 10m ./... $(CLIENT)

# The tests in e2e drive servers that are processes of their own,
# into which the detector does not see; those of the client run the client within their own process.
race: ## run the short tests with the race detector, which needs a C compiler
	$(RUNNER) env CGO_ENABLED=1 go test -race -short -timeout 15m $$(go list ./... | grep -v backplane/e2e/) ./e2e/client $(CLIENT)

services: ## install what tests can use: PostgreSQL, Redis, Node.js, a browser, HAProxy, PgBouncer, a C compiler
	.ci/services

soak: ## run the tests at their large size: an hour or more
	BACKPLANE_TEST_SOAK=on $(RUNNER) go test -count=1 -timeout 3h ./... $(CLIENT)

bench: ## measure requests of the built server beside hand-written handlers; BENCH="-rounds 3" passes flags (see -help)
	go run ./bench/endtoend $(BENCH)

benchmarks: ## run all Go benchmarks, of parts of the server
	$(RUNNER) go test -run '^$$' -bench . -benchmem ./... $(CLIENT)

fuzz: ## run each fuzz test for FUZZTIME
	@grep -rnoE --include='*_test.go' --exclude-dir=node_modules '^func Fuzz[A-Za-z0-9_]+' . | sort | while IFS=: read -r file _ text; do \
		go -C "$$(dirname "$$file")" test -run '^$$' -fuzz "^$${text#func }$$" -fuzztime $(FUZZTIME) . || exit 1; done

conformance: ## hold the schema and the server against the tools of others (needs Node.js)
	$(RUNNER) go test -count=1 -v ./conformance

generate: ## write all generated code and text
	go generate ./...
	go run ./graph/plangen
	go test ./internal/config -run TestMarkdown -update
	go test ./internal/cli -run TestHelp -update

fmt: ## format the code
	gofmt -w $$(git ls-files -co --exclude-standard '*.go')

format: ## check that the code is formatted
	@files=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); test -z "$$files" || { echo "make fmt would change:" $$files; exit 1; }

vet: ## run go vet
	go vet ./... && go -C client vet ./...

lint: $(LINTER) ## run all linters of .golangci.yml
	$(LINTER) run ./...
	cd client && ../$(LINTER) run --config ../.golangci.yml ./...

$(LINTER): tools/go.mod tools/go.sum
	go build -C tools -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

generated: ## check that generated code is up to date
	.ci/generated

recipe: ## check that the recipe of an entity in CONTRIBUTING.md works
	$(RUNNER) .ci/recipe

vulnerabilities: ## scan the dependencies for known vulnerabilities, if their database can be reached
	.ci/vulnerabilities

check: $(CHECKS) ## run all that CI runs, but the installing

checks: # what CI runs, one after the other
	@echo $(CHECKS)

clean: ## remove what was built, but not data/
	rm -rf bin .ci/cache conformance/node_modules clients/typescript/node_modules
