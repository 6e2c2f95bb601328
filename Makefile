# The same things .ci/run does, one at a time.
.PHONY: build test test-all check generate ci

build: ## a static binary
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o smtp2rest ./cmd/smtp2rest

test: ## the README's test command
	go test ./...

test-all: ## what 'make test' leaves out as well: long tests, real clients, mail servers, fuzzing, the package, systemd
	test/all

check: ## format, vet, lint
	test -z "$$(gofmt -l .)"
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

generate: ## files made from code
	go generate ./...

ci: ## all of it, on a clean clone of what is committed
	.ci/run
