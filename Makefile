# PassHSM. `make demo` and `make test` do all the set-up on a Debian machine with a Swift toolchain.

ifeq ($(origin SWIFT), undefined)
SWIFT := $(shell scripts/find-swift)
endif
export SWIFT
SOURCES = Sources Tests bench/driver Package.swift

.PHONY: help install-packages test-sources build release lint format test test-unit test-mount test-long \
	test-power test-thread test-hostile coverage fuzz demo bench clean

help:
	@echo "make demo       mount a real tree, read every file, compare every digest"
	@echo "make test       all tests; the mount tests need root and /dev/fuse"
	@echo "make test-long  the mount tests in their long forms (a million names, 200,000 files, 100 mounts)"
	@echo "make test-power crashes and power cuts in their long forms"
	@echo "make test-thread  data races: modules' tests under the thread sanitizer"
	@echo "make test-hostile  a hostile user on a mount for an hour; HOSTILE_SECONDS=3600"
	@echo "make coverage   the lines of each module that the unit tests run; DETAIL=1: of each file"
	@echo "make fuzz       libFuzzer on every parser of foreign bytes; FUZZ_SECONDS=600 for each"
	@echo "make bench      the comparison with other file systems, with a report; QUICK=1 takes a few minutes"
	@echo "make lint       swift-format, as in CI;  make format: bring the sources into line"
	@echo "make build      debug build;  make release: release build, .build/release/passhsm"

install-packages:
	@scripts/install-packages

test-sources: install-packages
	@scripts/fetch-test-sources
	@scripts/fetch-test-servers

build: install-packages
	$(SWIFT) build --build-tests

release: install-packages
	$(SWIFT) build -c release --product passhsm

lint:
	$(SWIFT) format lint --strict -r $(SOURCES)

format:
	$(SWIFT) format -i -r $(SOURCES)

test: test-unit test-mount

test-unit: build
	@scripts/run-tests unit

test-mount: build test-sources
	@scripts/run-tests mount

# 200 power cuts each on ext4 and xfs; every failpoint with every action; an error at every system call of a fill; 500
# times kill -9; 100,000 random operations.
test-power: build
	PASSHSM_LONG=1 $(SWIFT) test --skip-build --no-parallel --filter 'MountTests.(Power|Failpoints|Injection|Crash|Random)'

test-long: build test-sources
	PASSHSM_LONG=1 scripts/run-tests mount

# Builds only what these tests need, beside the usual build. A report fails the run.
THREAD_TESTS = ControlTests CoreTests FilesTests StoreTests SystemTests
test-thread: install-packages
	PASSHSM_THREAD_TESTS="$(THREAD_TESTS)" $(SWIFT) build --sanitize thread --scratch-path .build-tsan \
		--product PassHSMPackageTests
	@BUILD_FOLDER=.build-tsan scripts/run-tests unit

# A build of its own, in .build-coverage.
coverage: install-packages
	@DETAIL=$(DETAIL) scripts/coverage

# A finding ends its target with an error; Tests/Fuzz/README.md explains the next steps.
fuzz: install-packages
	@scripts/fuzz

# A hostile user for an hour, with each front end: others' reads are never held up for more than a second.
HOSTILE_SECONDS ?= 3600
test-hostile: build
	PASSHSM_HOSTILE_SECONDS=$(HOSTILE_SECONDS) $(SWIFT) test --skip-build --no-parallel --filter MountTests.HostileUser

bench:
	@scripts/install-packages bench
	@scripts/fetch-test-servers
	$(SWIFT) build -c release --product passhsm
	$(SWIFT) build -c release --product bench-driver
	bench/run $(if $(QUICK),--quick)

demo: release
	@scripts/demo .build/release/passhsm

clean:
	$(SWIFT) package clean
