# A thin front for meson. `make help` lists what there is.

BUILD ?= build
PREFIX ?= /usr/local
PYTEST = /usr/bin/python3 -m pytest
MESON_FLAGS_debug = --buildtype=debug -Db_sanitize=address,undefined
MESON_FLAGS_release = --buildtype=release -Db_ndebug=false
MESON_FLAGS_clang = --buildtype=debugoptimized -Dfuzz=true

.PHONY: all debug release clang run test check lint unit bench fuzz fmt docs install clean help deps-build deps-test
all: debug release

help:
	@sed -n 's/^## //p' Makefile

## make            build: build/debug (ASan, UBSan) and build/release
debug release: deps-build
	@test -f $(BUILD)/$@/build.ninja || meson setup $(BUILD)/$@ $(MESON_FLAGS_$@) --prefix=$(PREFIX)
	@ninja -C $(BUILD)/$@

## make clang      build with clang, and the fuzz targets, in build/clang
clang: deps-build deps-test
	@test -f $(BUILD)/$@/build.ninja || CC=clang meson setup $(BUILD)/$@ $(MESON_FLAGS_$@)
	@ninja -C $(BUILD)/$@

deps-build:
	@scripts/deps build
deps-test:
	@scripts/deps build test

## make run        build and start the quick-start edge with a demonstration origin; Ctrl-C ends it
run: release
	@scripts/run

## make check      unit tests, lint and the quick functional tests (under two minutes)
check: deps-test debug lint unit
	@TIDEGATE_BUILD=$(BUILD) $(PYTEST) -q tests/functional -m "not slow"

## make test       everything: what CI runs
test:
	@scripts/test

lint: debug
	@tools/lint

unit: debug
	@meson test -C $(BUILD)/debug --print-errorlogs --suite unit

## make fuzz       60 s of fuzzing for every codec; T=name for one, S=seconds
fuzz: clang
	@scripts/fuzz "$(T)" "$(or $(S),60)"

## make bench      measure beside HAProxy and nginx; CASE=name for one
bench: release deps-test
	@bench/run $(if $(CASE),--case $(CASE))

## make fmt        format all C files
fmt: deps-test
	@clang-format -i $$(git ls-files '*.c' '*.h')

## make docs       write docs/reference from the tables
docs: debug
	@$(BUILD)/debug/tools/gen_docs docs/reference

## make install    install the release build below PREFIX (default /usr/local); DESTDIR is honoured
install: release
	@meson install -C $(BUILD)/release $(if $(DESTDIR),--destdir $(DESTDIR))

clean:
	rm -rf $(BUILD)
