# engined. `make help` lists the targets.

export PATH := $(PATH):/usr/local/go/bin

# Without git, or in a tree that git does not trust, the revision stays unknown.
REVISION := $(shell git rev-parse HEAD 2>/dev/null)
VERSION ?= $(or $(shell git describe --tags --match 'v*' 2>/dev/null | sed s/^v//),0.1.0-dev)
export GOFLAGS := -buildvcs=$(if $(REVISION),true,false) $(GOFLAGS)
PROTOC_GEN_GO := v1.36.12
PROTOC_GEN_GO_GRPC := v1.6.2
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

# Pure Go name lookup in every binary; ocirun is one static file, so that a
# container's file system never supplies a library to it.
STAMP := -s -w -X main.version=$(VERSION) -X main.commit=$(REVISION) -X main.revision=$(REVISION)
TAGS := netgo osusergo
# Shim and ocirun are built with Go's older collector, whose small spans cost an
# idle process 60 KiB less, and a short one the faults of 25 pages; empty where
# the toolchain no longer has it.
LEAN_GC = $(shell GOEXPERIMENT=nogreenteagc go env GOEXPERIMENT 2>/dev/null)
# ocirun's heap begins with its area, as in all programs of Go before 1.26, and so is
# in one huge page rather than two where it is in one at all (nsenter/pages.c).
LEAN_HEAP = $(or $(shell GOEXPERIMENT=$(LEAN_GC),norandomizedheapbase64 go env GOEXPERIMENT 2>/dev/null),$(LEAN_GC))
OCIRUN_TAGS := $(TAGS) seccomp
# --wrap: nsenter/begin.c (and limit.c), pages.c, watcher.c; -u: or nothing takes that from libc.a
OCIRUN_LINK := -linkmode external -extldflags "-static -no-pie -Wl,--wrap=main,--wrap=pthread_getattr_np,--wrap=mmap,--wrap=pthread_create,-u,pthread_create"
# ocirun's C library is musl where there is one (Debian's musl-tools). glibc asks the
# processor 60 times what it can before main, which a hypervisor answers, and ocirun
# starts twice for each container: docs/performance.md. musl-gcc leaves out where the
# kernel's headers are. Looked for when it is used: `make run` may just have installed it.
# Who names a compiler, or builds for another processor, gets what he named.
MUSL = $(if $(filter default,$(origin CC)),$(shell [ "$$(go env GOARCH)" = "$$(go env GOHOSTARCH)" ] && command -v musl-gcc))
KERNEL_HEADERS = -idirafter /usr/include -idirafter /usr/include/$(shell gcc -print-multiarch)
OCIRUN_C = $(if $(MUSL),CC=musl-gcc CGO_CFLAGS='-O2 -g $(KERNEL_HEADERS)')
# Without gRPC's traces for browsers the linker can leave out what nobody calls.
SUPERVISOR_TAGS := $(TAGS) grpcnotrace

TOOL := go run ./integration/cmd
UNIT = $$(go list ./... | grep -v /integration)

.PHONY: help build failpoints race run stop test unit integration check lint vm bench power leakcheck clean generate packages packages-test

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the four binaries, into bin/
	@mkdir -p bin
	CGO_ENABLED=1 go build -trimpath -tags '$(TAGS)' -ldflags '$(STAMP)' -o bin/engined ./cmd/engined
	CGO_ENABLED=0 go build -trimpath -tags '$(SUPERVISOR_TAGS)' -ldflags '$(STAMP)' -o bin/supervisor ./cmd/supervisor
	CGO_ENABLED=0 GOEXPERIMENT=$(LEAN_GC) go build -trimpath -tags '$(TAGS)' -ldflags '$(STAMP)' -o bin/shim ./cmd/shim
	CGO_ENABLED=1 $(OCIRUN_C) GOEXPERIMENT=$(LEAN_HEAP) go build -trimpath -tags '$(OCIRUN_TAGS)' -ldflags '$(STAMP) $(OCIRUN_LINK)' -o bin/ocirun ./cmd/ocirun

# ocirun that dies where it is told to, which tests of killed runtimes need.
OUT = bin/ocirun-failpoints
failpoints:
	CGO_ENABLED=1 $(OCIRUN_C) go build -tags '$(OCIRUN_TAGS) failpoints' -ldflags '-s -w $(OCIRUN_LINK)' -o $(OUT) ./cmd/ocirun

run: packages build ## start the stack under ./.run and run a first container
	@$(TOOL)/stack up

stop: ## stop what `make run` started and remove ./.run
	@$(TOOL)/stack down

test: packages-test build ## unit and integration tests, with a summary (root)
	@$(TOOL)/summary \
		-- go test -race -json -tags '$(OCIRUN_TAGS)' $(UNIT) \
		-- go test -json -p 1 -timeout 30m ./integration/...

unit: ## unit tests with the race detector
	@$(TOOL)/summary -- go test -race -json -tags '$(OCIRUN_TAGS)' $(UNIT)

integration: packages-test build ## integration tests alone (root)
	@$(TOOL)/summary -- go test -json -p 1 -timeout 30m ./integration/...

check: ## gofmt, vet, layout of the rooms, shell scripts
	@unformatted=$$(gofmt -l cmd engined failpoint heap integration libcontainer nsenter proto runtime shim supervisor); \
		if [ -n "$$unformatted" ]; then echo "gofmt: $$unformatted"; exit 1; fi
	go vet -tags '$(OCIRUN_TAGS)' ./...
	go test -count=1 ./integration
	@if command -v shellcheck >/dev/null; then shellcheck contrib/*.sh integration/*.sh .ci/run; fi

lint: ## golangci-lint (its first build takes minutes)
	go run $(GOLANGCI_LINT) run ./...

vm: packages-test build ## ocirun's tests under pure cgroup v2 in a virtual machine (VM_FLAGS=--apparmor)
	@integration/vm.sh integration/oci libcontainer libcontainer/cgroup libcontainer/criu

bench: packages-test build ## medians against runc, crun and dockerd, interleaved (root)
	go test -count=1 -timeout 30m -run "Supervisor|Runtimes|PeakMemory|Cycle|Exec|Parallel|Crowded|Engines|Logs|Image" ./integration/perf -v -full

power: build ## power cuts in a virtual machine (root; ENGINED_VM_RUN, see integration/power)
	ENGINED_POWER=$${ENGINED_POWER:-30} go test -count=1 -timeout 90m -run PowerCuts ./integration/power -v

leakcheck: ## what containers, tests or instances left behind; exits 1 if anything
	@$(TOOL)/leakcheck

clean: ## stop, and remove bin/ and ./.run
	@if [ -e .run ]; then $(TOOL)/stack down; fi
	rm -rf bin

generate: ## Go code of the .proto files (protoc, network)
	GOBIN=$(CURDIR)/.cache/bin go install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO)
	GOBIN=$(CURDIR)/.cache/bin go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GO_GRPC)
	PATH=$(CURDIR)/.cache/bin:$$PATH protoc --go_out=. --go_opt=paths=source_relative \
		--go-grpc_out=. --go-grpc_opt=paths=source_relative proto/supervisor/v1/supervisor.proto

packages:
	@contrib/packages.sh run

packages-test:
	@contrib/packages.sh test
