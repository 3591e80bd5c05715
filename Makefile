# What can be done with this repository. `make` alone lists it.

PREFIX  ?= /usr/local
DESTDIR ?=

SHIM     := build/containerd-shim-cleat-v2
TOOL     := build/cleat
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
REVISION := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

# no_grpc leaves the grpc half of containerd's generated code out of the shim.
TAGS    := no_grpc
# Go's older collector, where there is still the choice, keeps its mark bits away
# from the objects: 90 KiB less memory in every idle shim (docs/performance.md).
EXPERIMENT := $(shell GOEXPERIMENT=nogreenteagc go version >/dev/null 2>&1 && echo nogreenteagc)
LDFLAGS := -s -w -X main.release=$(VERSION) -X main.revision=$(REVISION)

# The bounds below are for a small machine with cold caches; a run takes less.
UNIT_TIME        ?= 5m
INTEGRATION_TIME ?= 10m
V2_TIME          ?= 40m
ROUNDS           ?= 1
TIME             ?= 30m

.DEFAULT_GOAL := help
.PHONY: help build install demo test test-unit test-integration test-v2 conformance compatibility chaos chaos-stock bench bench-quick lint setup clean

help:
	@echo 'make demo     show one container'"'"'s whole life on a private containerd (root, Go, a C compiler)'
	@echo 'make test     all tests: the rooms by themselves, then with a real containerd and runc (root), then test-v2'
	@echo 'make test-v2  the integration tests on cgroup v2 and on systemd, each in a virtual machine (no kvm)'
	@echo 'make conformance  containerd'"'"'s own client tests on stock and on cleat, side by side (root; ROUNDS=3: each three times)'
	@echo 'make compatibility  all of it on containerd 1.6 to 2.4, with three OCI runtimes, by all clients; writes docs/compatibility.md (root)'
	@echo 'make chaos    containers and execs while everything that can die dies, then a look at everything (root; TIME=2m, SEED=n)'
	@echo 'make chaos-stock  the same on containerd'"'"'s own shim'
	@echo 'make bench    cleat against containerd'"'"'s own shim: figures, plots, budgets (root; 10 minutes; BENCH=-list lists all; BENCH='"'"'-runs 3'"'"': three runs)'
	@echo 'make bench-quick  the same with few samples, in under 2 minutes on a machine that does nothing else'
	@echo 'make build    the shim and the operator'"'"'s tool, in $(SHIM) and $(TOOL)'
	@echo 'make install  both to $(DESTDIR)$(PREFIX)/bin, with man pages and completions (PREFIX and DESTDIR can be set)'
	@echo 'make lint     gofmt, go vet, staticcheck'
	@echo 'make clean    remove build/'

build:
	CGO_ENABLED=0 GOEXPERIMENT=$(EXPERIMENT) go build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o $(SHIM) ./cmd/containerd-shim-cleat-v2
	CGO_ENABLED=0 go build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o $(TOOL) ./cmd/cleat

install: build
	install -D -m 0755 $(SHIM) $(DESTDIR)$(PREFIX)/bin/containerd-shim-cleat-v2
	install -D -m 0755 $(TOOL) $(DESTDIR)$(PREFIX)/bin/cleat
	install -d $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(TOOL) man $(DESTDIR)$(PREFIX)/share/man/man8
	$(TOOL) completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/cleat
	$(TOOL) completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_cleat
	$(TOOL) completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/cleat.fish

demo:
	@cd integration && go run ./demo

test: V2_FLAGS ?= -short
test: test-unit test-integration test-v2

# Most of a test is waiting, so more packages, or below more tests of one, run at a
# time than there are processors.
test-unit: setup
	go test -race -count 1 -p 4 -tags '$(TAGS)' -timeout $(UNIT_TIME) ./...

# In the folder and without a package list, go test shows what the tests write
# while they run. Of packages, those that take longest begin first.
test-integration: setup
	cd integration && go test -count 1 -parallel 5 -timeout $(INTEGRATION_TIME)
	cd integration && go test -count 1 -parallel 4 -timeout $(UNIT_TIME) ./docker ./bench ./chaos/... ./cri ./demo ./compatibility/... ./conformance/... ./nerdctl ./rootless
	cd integration/bench/plot && go test -count 1 .

# The same tests in virtual machines that have what this one may lack. As a part of
# test, what is done many times is done fewer times, and what needs a kernel to be
# built, chaos and most tests of single packages are left out.
test-v2: setup
	cd integration/vm && go test -count 1 $(V2_FLAGS) -timeout $(V2_TIME)

# Other options of the command are given in CONFORMANCE: -run, -on, ... (-help).
conformance: setup
	cd integration && go test -count 1 ./conformance/...
	cd integration && go run ./conformance -count $(ROUNDS) -json ../build/conformance/results.json $(CONFORMANCE)

# A first run builds three more containerds.
compatibility: setup
	cd integration && go run ./compatibility -write ../docs/compatibility.md

# docs/reliability.md says what is checked. Other options of the command are given
# in CHAOS: -faults, -containers, -round, ... (-help).
chaos chaos-stock: setup
	cd integration && go run ./chaos -time $(TIME) $(if $(SEED),-seed $(SEED)) $(if $(filter chaos-stock,$@),-runtime io.containerd.runc.v2) \
		-reports ../build/chaos/reports -json ../build/chaos/$@.json $(CHAOS)
# docs/performance.md says what is measured. Options of the command are given in
# BENCH: -only, -doc, ... (-help). A measurement that fails keeps no other from being
# drawn.
bench bench-quick: setup
	@cd integration && status=0; go run ./bench -form $(if $(filter bench,$@),full,quick) $(BENCH) || status=$$?; \
		cd bench/plot && if [ -f ../../../build/bench/results.json ]; then go run . ../../../build/bench $(if $(findstring performance.md,$(BENCH)),../../../docs/performance) || status=$$?; fi; \
		exit $$status

# Builds or installs what the demo and the tests need; does nothing when it is there.
setup:
	@cd integration && go run ./setup

lint:
	@unformatted=$$(gofmt -l cmd shim process oci integration); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change:" $$unformatted; exit 1; fi
	go vet -tags '$(TAGS)' ./...
	cd integration && go vet ./...
	cd integration/bench/plot && go vet ./...
	cd integration/lint && go build -o ../../build/staticcheck honnef.co/go/tools/cmd/staticcheck
	build/staticcheck -tags '$(TAGS)' ./...
	cd integration && ../build/staticcheck ./...
	cd integration/bench/plot && ../../../build/staticcheck ./...

clean:
	rm -rf build
