# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

.PHONY: needs
needs:
	@scripts/needs

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

# A fresh clone compiles the local builder only. After `make test`, the demo asks for the same packages, and for examples,
# which have the dependencies of tests: the compiled dependencies then have the features that the demo needs.
DEMO_PACKAGES := $(if $(wildcard $(TARGET_DIR)/debug/deps/service-*),--workspace --examples,--no-default-features -p vx -p velox-testkit)

.PHONY: demo
demo: needs ## build vx, let it build a server from an example, start that server and fetch a file from it
	@cargo build --locked $(DEMO_PACKAGES) --bins
	@$(TARGET_DIR)/debug/velox-demo $(TARGET_DIR)/debug/vx

.PHONY: test
test: needs ## run every test
	@cargo test --locked --workspace

.PHONY: soak
soak: needs ## the long form of the tests that crash services and builds, and of those that measure memory (about an hour)
	@VX_TEST_LONG=1 cargo test --locked -p vx --test build --test service -- \
		killed server_crash cluster page build_is_made_once --nocapture --test-threads=1

.PHONY: acceptance
acceptance: needs ## build the real RoadRunner too, cold (needs VX_TEST_GOPROXY)
	@VX_TEST_COLD=1 cargo test --locked -p vx --test build -- real_roadrunner killed --nocapture --test-threads=1

.PHONY: release
release: ## compile vx for the release's targets that this machine's Rust has, and pack them into dist/
	@scripts/release

.PHONY: bench
bench: needs ## measure vx beside Velox: VELOX=/path/to/velox (and VX_TEST_GOPROXY), ARGS="--rounds 5"
	@cargo build --locked --release -p vx -p velox-bench
	@VX="$${VX:-$(TARGET_DIR)/release/vx}" $(TARGET_DIR)/release/velox-bench $(ARGS)

.PHONY: book
book: ## write the generated pages of docs/ anew, and make the website target/book
	@INSTA_UPDATE=always cargo test --locked --quiet -p velox-manifest --test manifest the_page
	@INSTA_UPDATE=always cargo test --locked --quiet -p vx --bin vx reference::the_page
	@scripts/book

# The same packages and kinds of targets each time: cargo then checks every dependency once. There are no examples; asking
# for them lets `cargo doc` see the features that the tests need.
.PHONY: lint
lint: ## formatting, lints, cycles between modules, documentation, scripts and Dockerfiles, licences
	@cargo fmt --all --check
	@cargo clippy --locked --workspace --features velox-fuzz/targets --all-targets -- -D warnings
	@cargo clippy --locked --workspace --no-default-features --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --lib --bins --examples
	@scripts/module-cycles
	@scripts/lint-packaging
	@scripts/book
	@if command -v cargo-deny >/dev/null; then cargo deny check licenses bans sources; else echo "cargo-deny is not installed: licences not checked (scripts/install-tool cargo-deny)"; fi

# Coverage-guided fuzzing without a nightly compiler: cargo-fuzz's flags without the sanitizer.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table --cfg fuzzing
FUZZ_SECONDS ?= 60

.PHONY: fuzz
fuzz: ## feed every parser of foreign input with garbage, FUZZ_SECONDS=60 for each
	@for target in $$(sed -n 's/^name = "\(.*\)"/\1/p' fuzz/Cargo.toml | tail -n +2); do \
		mkdir -p fuzz/corpus/$$target; \
		RUSTFLAGS="$(FUZZ_FLAGS)" cargo run --locked --release --quiet --target-dir target/fuzz \
			-p velox-fuzz --features engine --bin $$target \
			--target "$$(rustc -vV | sed -n 's/^host: //p')" -- \
			fuzz/corpus/$$target $$(ls -d fuzz/seeds/$$target 2>/dev/null) -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -artifact_prefix=fuzz/$$target-; \
	done
