# Each command is one line that calls cargo or menagerie. `make setup` runs before them all: it installs
# what is missing, says so, and is silent when everything is there.
.PHONY: up test test-long bench chaos lint setup browser
.DEFAULT_GOAL := up

up: setup ## build and start everything; Ctrl-C stops it
	cargo run --release --package cluster -- up

test: setup browser ## all tests but the long ones
	cargo nextest run --release --workspace --profile default

test-long: setup browser ## all tests, then those that must find the bugs planted for them
	@.ci/setup long
	MENAGERIE_PREVIOUS=$$(.ci/previous) cargo nextest run --release --workspace --profile long
	cargo nextest run --release --package cluster --features planted --profile planted

bench: setup ## measure the store beside etcd; writes bench-report/report.html
	@.ci/setup bench
	cargo run --release --package cluster -- bench

chaos: setup ## break three nodes in every way there is and judge what clients saw; writes chaos-report
	cargo run --release --package cluster -- chaos

lint: setup ## formatting and clippy
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	cargo clippy --release --workspace --all-targets --features cluster/planted -- -D warnings

# RocksDB is C++ and its bindings are made with libclang; the tests are run by nextest.
setup:
	@.ci/setup

# The tests of the pages run in a real browser.
browser:
	@.ci/setup browser
