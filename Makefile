# Everyday commands; `make help` lists them. Meson does the work, in folders
# below build/. What is missing on a Debian or Ubuntu machine is installed with
# apt-get; KIST_NO_INSTALL=1 forbids that.

BUILD   = build/release
PREFIX ?= /usr/local
DESTDIR ?=
# What `make demo` loads, and further options of the programs behind.
DIR     = /usr/share
ARGS    =

# How meson sets up each build folder: make what is not there, leave what is.
setup = test -f $(1)/build.ninja || meson setup $(1) $(2)
ninja = ninja -C $(1) --quiet

.PHONY: all help check test demo bench bench-guard bench-ordered bench-pages bench-python install \
        uninstall format clean build/bench \
        packages-build packages-check packages-bench packages-python packages-dev

all: packages-build
	@$(call setup,$(BUILD),--prefix=$(PREFIX))
	@$(call ninja,$(BUILD))

help:
	@echo 'make              build the library and the program kist, in $(BUILD)'
	@echo 'make demo         build, and watch kist at work on real files, those below DIR=$(DIR)'
	@echo 'make check        all tests, with gcc, clang and sanitizers, and the Python package; some 15 minutes'
	@echo 'make test         the unit tests alone, in seconds'
	@echo 'make bench        speed and size, beside LMDB and tkrzw'
	@echo 'make bench-guard  instruction counts of get and put, against the committed ones'
	@echo 'make bench-ordered  ordered banks: gets, puts, scans, snapshots, beside BTreeMap, tkrzw, LMDB'
	@echo 'make bench-pages  reads through the page cache, beside a mapped load, memcpy and pread'
	@echo 'make bench-python the Python package, beside py-lmdb, diskcache, a file per key, a dict'
	@echo 'make install      to PREFIX=$(PREFIX), below DESTDIR if given; make uninstall'
	@echo 'make format       lay out the code as .clang-format says'
	@echo 'make clean        remove build/'
	@echo
	@echo 'ARGS=... goes to the program behind demo, the benchmarks, check.'
	@echo 'KIST_NO_INSTALL=1 names missing packages instead of installing them.'

check: packages-check
	@scripts/check $(ARGS)

test: packages-check
	@scripts/check --quick

demo: all
	@$(BUILD)/src/cli/kist-demo $(DIR) $(ARGS)

build/bench: packages-bench
	@$(call setup,$@,-Dbench=true)
	@$(call ninja,$@)

bench: build/bench
	@build/bench/bench/kist-bench $(ARGS)

bench-guard: build/bench
	@bench/guard build/bench $(ARGS)

bench-ordered: build/bench
	@build/bench/bench/kist-bench --ordered $(ARGS)

bench-pages: build/bench
	@build/bench/bench/kist-bench-pages $(ARGS)

# Its peers come from the package index, into a virtual environment.
bench-python: packages-python
	@bindings/python/bench/run $(ARGS)

# Installing is often done by root: it builds nothing and installs no package
# when `make` was run before.
install:
	@test -f $(BUILD)/build.ninja || $(MAKE) --no-print-directory all
	@meson configure $(BUILD) -Dprefix=$(PREFIX)
	@DESTDIR=$(DESTDIR) meson install -C $(BUILD)

uninstall:
	@ninja -C $(BUILD) uninstall

# The public header is laid out by hand.
format: packages-dev
	@git ls-files -z '*.[ch]' ':!include' | xargs -0 clang-format -i

clean:
	rm -rf build

packages-build packages-check packages-bench packages-python packages-dev:
	@scripts/ensure-packages $(@:packages-%=%)
