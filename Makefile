# Nave. `make run` on a fresh Debian 12 machine with cargo: installs what is missing, builds, brings up the demonstration
# cloud. `make test`: all tests. Both make network namespaces and install packages, so they want root.
#
#   make run [ARGS="--once --phase 3 --ports tap"]   the demonstration cloud (target/release/nave-cloud --help)
#   make test        unit tests and black-box tests
#   make test-all    the same, the model check of table publication, the count of instructions, and interop with hubs and spokes of Linux, FRR and strongSwan in virtual machines
#   make miri        the AES-GCM kernels, AVX-512 among them, interpreted step by step; wants a nightly toolchain with Miri
#   make lint        formatting, clippy and rustdoc, warnings as errors
#   make walk        makes the blocks of docs/walk.md anew: traced and captured packets of a run
#   make gate        instructions per packet of the graph beside the committed ones: fails where more than 1 % has changed; ACCEPT="why" commits to what is
#   make bench       the table of cycles per packet, clear and protected, and a page with plots; cycles of AES-GCM, per look-up of the FIB, a million routes through gRPC, NHRP registrations, IKE SAs (nave-perf)
#   make fuzz        gives bytes to the codecs and engines of NHRP and IKE, to the providers of AES-GCM and to ESP in the data plane, for FUZZ_SECONDS, 1800 in all; wants a nightly toolchain
#   make deps        the Debian packages alone

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO ?= cargo
ARGS ?=
FUZZ_SECONDS ?= 1800

# Of the build: a C compiler, libdpdk with LLVM 14 for its bindings, protoc.
BUILD_PACKAGES := build-essential pkg-config libdpdk-dev clang-14 libclang-14-dev protobuf-compiler libprotobuf-dev
# Of the cloud: namespaces, and what is tried in them.
RUN_PACKAGES := iproute2 iputils-ping ethtool tcpdump
# Of the tests: other people's dissector, traffic and routing daemons.
TEST_PACKAGES := tshark iperf3 frr traceroute iputils-tracepath python3-venv
# Of `make test-interop`: its virtual machines, and the NAT that some of them are behind.
INTEROP_PACKAGES := bc xz-utils nftables

.PHONY: run test test-all test-interop walk loom miri lint gate bench fuzz fuzz-corpus fuzz-tools build deps root toolchain
.DEFAULT_GOAL := build

build: deps
	$(CARGO) build --release --workspace --bins

run: root build
	$(CARGO) run --quiet --release --package tests --bin nave-cloud -- $(ARGS)

# One profile (dev: optimised a little, with debug assertions) and one build for the programs and their tests, so that nothing is
# built twice.
test: root deps
	$(call install,$(TEST_PACKAGES))
	$(CARGO) build --workspace --bins --tests
	$(CARGO) test --workspace --no-fail-fast

test-all: test loom gate test-interop

test-interop: root deps
	$(call install,$(TEST_PACKAGES) $(INTEROP_PACKAGES))
	$(CARGO) build --workspace --bins --tests
	$(CARGO) test --package tests --no-fail-fast --test 'interop*' -- --ignored

# One profile for the programs and for the one that runs them, as for the tests.
walk: root deps
	$(call install,$(TEST_PACKAGES))
	$(CARGO) build --workspace --bins
	$(CARGO) run --quiet --package tests --bin nave-walk

# Table publication, and rings between workers, under every interleaving that loom finds.
loom: deps
	RUSTFLAGS="--cfg loom" $(CARGO) test --release --package memory --package forwarding --target-dir target/loom --test loom

# Our AES-GCM kernels, step by step on any processor: their bytes, and that they touch nothing beside a text.
MIRI_FEATURES = +avx2,+aes,+pclmulqdq,+bmi1,+bmi2,+avx512f,+avx512bw,+avx512vl,+avx512dq,+vaes,+vpclmulqdq

miri: deps
	@$(CARGO) +nightly miri --version >/dev/null 2>&1 || { \
	  echo 'it wants Miri: rustup toolchain install nightly --profile minimal --component miri,rust-src' >&2; exit 1; }
	RUSTFLAGS='--cfg aes_backend="soft" -C target-feature=$(MIRI_FEATURES)' $(CARGO) +nightly miri test --target-dir target/miri \
	  --manifest-path dataplane/aead/Cargo.toml --lib kernels_agree

lint: deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

# The runs of graph, wire and spokes go into target/bench and, beside what must be reached and what the peer takes, into a table and a page; what else
# is in target/bench (of `nave-perf ndr` and others, with --json) is on the page, too. SOAK=15 adds so many minutes of `nave-perf soak`. ARGS is of
# `graph`: "--packets 262144" takes a quarter of the time, "--json" makes the other commands write JSON.
BENCH = target/bench
GRAPH_ARGS = $(filter-out --json,$(ARGS))

bench: deps
	$(CARGO) build --release --package perf --package dataplane --package controlplane --bins
	mkdir -p $(BENCH); rm -f $(BENCH)/{graph,wire,spokes,soak}.jsonl
	perf() { $(CARGO) run --quiet --release --package perf --bin nave-perf -- "$$@"; }; \
	graph() { echo "graph $$*" >&2; perf graph "$$@" --json $(GRAPH_ARGS) >> $(BENCH)/graph.jsonl; }; \
	for size in 64 354 1400; do \
	  for scenario in ipv4 encap decap gre-relay; do graph --scenario $$scenario --spokes 1000 --size $$size; done; \
	done; \
	for size in 64 354 1400; do \
	  for spokes in 1 1000 10000; do \
	    for scenario in encrypt decrypt relay; do graph --scenario $$scenario --spokes $$spokes --size $$size; done; \
	  done; \
	done; \
	graph --scenario relay --spokes 10000 --size imix; \
	for routes in 1000 1000000; do graph --scenario relay --spokes 1000 --size 64 --routes $$routes --public; done; \
	for scenario in ipv4 relay; do graph --scenario $$scenario --spokes 1000 --size 64 --load 70; done; \
	graph --scenario ipv6 --spokes 1000 --size 70; \
	for inner in ipv4 ipv6; do \
	  for outer in ipv4 ipv6; do graph --scenario gre-relay --inner $$inner --outer $$outer --spokes 1000 --size 70; done; \
	done; \
	for routes in 10 1000000; do \
	  for scenario in ipv4 gre-relay; do graph --scenario $$scenario --spokes 10 --routes $$routes --public; done; \
	done; \
	for size in 64 1400; do \
	  for scenario in ipv4 relay; do \
	    echo "wire --scenario $$scenario --size $$size" >&2; \
	    perf wire --scenario $$scenario --spokes 1000 --size $$size --graph --json >> $(BENCH)/wire.jsonl; \
	  done; \
	done; \
	echo spokes >&2; perf spokes --json >> $(BENCH)/spokes.jsonl; \
	if [ -n "$(SOAK)" ]; then echo "soak for $(SOAK) minutes" >&2; perf soak --minutes $(SOAK) --json >> $(BENCH)/soak.jsonl; fi; \
	perf report $(BENCH)/*.jsonl --html $(BENCH)/report.html --title "Nave $$(git describe --always --dirty 2>/dev/null)"; \
	for bits in 128 256; do perf aead --bits $$bits $(filter --json,$(ARGS)); done; \
	perf fib $(filter --json,$(ARGS)); \
	perf routes $(filter --json,$(ARGS)); \
	for clients in 10000 100000; do perf nhrp --clients $$clients $(filter --json,$(ARGS)); done; \
	perf nhrp --process --clients 10000 $(filter --json,$(ARGS)); \
	for proof in "psk --suite aes256gcm16-prfsha384-x25519" "ecdsa --suite aes256gcm16-prfsha384-ecp256"; do \
	  perf ike --proof $$proof $(filter --json,$(ARGS)); \
	done; \
	perf ike --process $(filter --json,$(ARGS))

# Instructions of each scenario, counted by callgrind, beside the committed ones: they are the same on any machine with the same compiler, so
# that a change is one of the code. ACCEPT="why" writes them anew.
gate: deps
	$(call install,valgrind)
	$(CARGO) build --release --package perf --bin nave-perf
	$(CARGO) run --quiet --release --package perf --bin nave-perf -- gate $(if $(ACCEPT),--accept "$(ACCEPT)")

# A third of the time for the engine of IKE, a sixth each for its codec, and for the codec and the engine of NHRP, a twelfth for AES-GCM and for ESP. What is found lies in target/fuzz-found; the corpus grows in target/fuzz-corpus,
# and `make fuzz-corpus` makes it the committed one again, as small as it can be.
FUZZ = $(CARGO) +nightly fuzz
FUZZ_DIR = --fuzz-dir fuzz/targets --target-dir target/fuzz

fuzz: fuzz-tools
	fuzz() { \
	  mkdir -p target/fuzz-corpus/$$1 target/fuzz-found/$$1; \
	  $(FUZZ) run $(FUZZ_DIR) $$1 target/fuzz-corpus/$$1 fuzz/corpus/$$1 -- -max_total_time=$$2 -max_len=2048 -len_control=0 -timeout=20 \
	    -rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix=target/fuzz-found/$$1/ $(ARGS); \
	}; \
	fuzz codec $$(($(FUZZ_SECONDS) / 6)); \
	fuzz aead $$(($(FUZZ_SECONDS) / 12)); \
	fuzz esp $$(($(FUZZ_SECONDS) / 12)); \
	fuzz engine $$(($(FUZZ_SECONDS) / 6)); \
	fuzz ike_codec $$(($(FUZZ_SECONDS) / 6)); \
	fuzz ike_engine $$(($(FUZZ_SECONDS) / 3))

fuzz-corpus: fuzz-tools
	for target in codec aead esp engine ike_codec ike_engine; do \
	  mkdir -p target/fuzz-corpus/$$target; cp fuzz/corpus/$$target/* target/fuzz-corpus/$$target/; \
	  $(FUZZ) cmin $(FUZZ_DIR) $$target target/fuzz-corpus/$$target -- -max_len=2048; \
	  rm -f fuzz/corpus/$$target/*; cp target/fuzz-corpus/$$target/* fuzz/corpus/$$target/; \
	done

fuzz-tools: toolchain
	@$(CARGO) +nightly --version >/dev/null 2>&1 || { \
	  echo 'fuzzing wants a nightly toolchain, for its sanitizer: rustup toolchain install nightly --profile minimal' >&2; exit 1; }
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { echo 'installing cargo-fuzz'; $(CARGO) install --quiet --locked cargo-fuzz; }

deps: toolchain
	$(call install,$(BUILD_PACKAGES) $(RUN_PACKAGES))

# How a user's own toolchain is kept under sudo.
AS_ROOT = sudo env PATH="$$PATH" RUSTUP_HOME="$${RUSTUP_HOME:-$$HOME/.rustup}" CARGO_HOME="$${CARGO_HOME:-$$HOME/.cargo}" make
RUST := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

toolchain:
	@command -v $(CARGO) >/dev/null || { \
	  echo 'cargo is not here: install Rust $(RUST) or newer (https://rustup.rs); to run as root with your own: $(AS_ROOT)' >&2; exit 1; }
	@have=$$(rustc --version | cut -d' ' -f2); \
	printf '%s\n' $(RUST) "$${have%%-*}" | sort -CV || { echo "rustc is $$have; $(RUST) or newer is needed (rustup update)" >&2; exit 1; }

root:
	@[ "$$(id -u)" = 0 ] || { \
	  echo 'make $(or $(MAKECMDGOALS),build) makes network namespaces and taps: run it as root: $(AS_ROOT) $(MAKECMDGOALS)' >&2; exit 1; }

# Installs the Debian packages that are missing; quick when none is. No service is started, and none that was not there before
# is left enabled (frr's is not wanted: the tests start its daemons themselves).
define install
	@missing=(); for package in $(1); do \
	  dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || missing+=($$package); \
	done; \
	[ $${#missing[@]} -gt 0 ] || exit 0; \
	if [ "$$(id -u)" != 0 ]; then echo "packages are missing; as root: apt-get install --no-install-recommends $${missing[*]}" >&2; exit 1; fi; \
	echo "installing $${missing[*]}"; \
	policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then trap "rm -f $$policy" EXIT; printf '#!/bin/sh\nexit 101\n' > $$policy; chmod +x $$policy; fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get -qq update; \
	apt-get -qq -y --no-install-recommends install $${missing[@]} >/dev/null; \
	if [[ " $${missing[*]} " = *" frr "* ]] && [ -d /run/systemd/system ]; then systemctl --quiet disable frr; fi
endef
