# bounceio: an LD_PRELOAD library that bounces, checksums and verifies direct I/O.
#
#   make            build/libbounceshim.so          make demo        see it work
#   make check      the tests                       make check-apps  real programs under the shim
#   make torture    kills and power cuts           make model       every interleaving of the protocols
#   make fuzz       maps that say anything         make bench      what it costs, and where it is faster
#   make install    PREFIX=/usr/local DESTDIR=      make deps        install what building and testing need
#
# V=1 shows commands. CC=clang and CFLAGS are honoured. Other builds of the same tree: VARIANT=asan|tsan|steps|fuzz.

MAKEFLAGS += --no-builtin-rules

VERSION := $(shell sed -n 's/^.define BOUNCEIO_VERSION "\(.*\)"/\1/p' include/bounceio.h)
SOVERSION := 0
LIBRARY := libbounceshim.so

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
BINDIR ?= $(PREFIX)/bin
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
PKG_CONFIG ?= pkg-config
OBJCOPY ?= objcopy
INSTALL ?= install
CFLAGS ?= -O2 -g

ifneq ($(V),1)
Q := @
say = @echo "  $(1)	$(2)"
endif

# ---- Builds of the same tree ----

# release: what is installed. steps: release plus a delay at each step of the map's protocol, for tests of interleavings. fuzz: with clang.
VARIANT ?= release
BUILD_release := build
BUILD_asan := build-asan
BUILD_tsan := build-tsan
BUILD_steps := build/steps
BUILD_fuzz := build-fuzz
BUILD ?= $(BUILD_$(VARIANT))

FLAGS_asan := -fsanitize=address,undefined -fno-sanitize-recover=undefined
FLAGS_tsan := -fsanitize=thread
FLAGS_steps := -DBOUNCEIO_TEST_STEPS
FLAGS_fuzz := -DBOUNCEIO_TEST_STEPS -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	-fsanitize-coverage=inline-8bit-counters,pc-table
VARIANT_FLAGS := $(FLAGS_$(VARIANT))

# ---- Flags ----

WARNINGS := -Wall -Wextra -Wshadow -Wconversion
INCLUDES := -Ishim -Iinclude
XXHASH_CFLAGS := $(shell $(PKG_CONFIG) --cflags libxxhash 2>/dev/null)
CHECK_CFLAGS := $(shell $(PKG_CONFIG) --cflags check 2>/dev/null)
CHECK_LIBS := $(shell $(PKG_CONFIG) --libs check 2>/dev/null)
# What programs submit asynchronous requests with; only those that do are linked with it.
ASYNC_LIBS := -Wl,--as-needed -laio -luring -Wl,--no-as-needed

# Fortified inlines would hide the very names that the shim defines.
COMMON_CFLAGS := -std=gnu11 -D_GNU_SOURCE $(INCLUDES) $(WARNINGS) \
	-fno-omit-frame-pointer -pthread -MMD -MP
SHIM_CFLAGS = $(COMMON_CFLAGS) $(CFLAGS) -U_FORTIFY_SOURCE -fvisibility=hidden -fPIC -ftls-model=initial-exec \
	$(VARIANT_FLAGS)
TEST_CFLAGS = $(COMMON_CFLAGS) -Itests $(CHECK_CFLAGS) $(CFLAGS)
SHIM_LDFLAGS = $(LDFLAGS) -shared -Wl,-z,now,-z,relro,-soname,$(LIBRARY).$(SOVERSION) \
	-Wl,--version-script=$(BUILD)/shim.map $(VARIANT_FLAGS) -pthread

# ---- Sources ----

FLOORS := base bounce checksum files engine rings
# Compiled once for each instruction set, by rules of its own.
BLOCK_HASH := shim/checksum/block_hash.c
SUM_COPY := shim/checksum/sum_copy_loop.c
HASH_VARIANTS := baseline
ifneq ($(filter x86_64%,$(shell $(CC) -dumpmachine)),)
HASH_VARIANTS += avx2 avx512
endif
HASH_FLAGS_avx2 := -mavx2
HASH_FLAGS_avx512 := -mavx512f

object = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
FLOOR_OBJECTS := $(call object,$(filter-out $(BLOCK_HASH) $(SUM_COPY),$(foreach floor,$(FLOORS),$(wildcard shim/$(floor)/*.c))))
HASH_OBJECTS := $(HASH_VARIANTS:%=$(BUILD)/obj/shim/checksum/block_hash_%.o)
SUM_COPY_OBJECTS := $(patsubst %,$(BUILD)/obj/shim/checksum/sum_copy_%.o,$(filter-out baseline,$(HASH_VARIANTS)))
FLOOR_OBJECTS += $(HASH_OBJECTS) $(SUM_COPY_OBJECTS)
ENTRY_OBJECTS := $(call object,$(wildcard shim/entry/*.c))
CLI_OBJECTS := $(call object,$(wildcard shim/cli/*.c))

EXAMPLES := $(patsubst %.c,$(BUILD)/%,$(wildcard examples/*.c))
SUPPORT_OBJECTS := $(call object,$(wildcard tests/support/*.c))
UNIT_TESTS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/unit/test_*.c))
SHIM_TESTS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/shim/test_*.c))
# Libraries that tests load: plug-ins, constructors that run before ours.
TEST_LIBRARIES := $(patsubst %.c,$(BUILD)/%.so,$(wildcard tests/shim/lib_*.c))
TEST_PROGRAMS := $(UNIT_TESTS) $(SHIM_TESTS)
FUZZERS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_OBJECTS := $(call object,$(filter-out tests/fuzz/fuzz_%,$(wildcard tests/fuzz/*.c)))
# Each is a controller and, in other modes, the programs that it starts, kills and cuts off.
TORTURES := $(BUILD)/tests/torture/kill9 $(BUILD)/tests/torture/powercut
TORTURE_OBJECTS := $(call object,$(filter-out $(TORTURES:$(BUILD)/%=%.c),$(wildcard tests/torture/*.c)))
# idle measures what needs no direct I/O, internals the floors below the wrappers; the rest is one program.
BENCH_IDLE := $(BUILD)/tests/bench/idle
BENCH_INTERNALS := $(BUILD)/tests/bench/internals
BENCH_OBJECTS := $(call object,$(filter-out tests/bench/idle.c tests/bench/internals.c,$(wildcard tests/bench/*.c)))
BENCHES := $(BUILD)/tests/bench/bench $(BENCH_IDLE) $(BENCH_INTERNALS)

PRODUCTS := $(BUILD)/$(LIBRARY) $(BUILD)/bounceio.pc $(if $(CLI_OBJECTS),$(BUILD)/bounceio)

all: $(PRODUCTS)

# ---- The library ----

$(BUILD)/$(LIBRARY): $(FLOOR_OBJECTS) $(ENTRY_OBJECTS) $(BUILD)/shim.map
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $(FLOOR_OBJECTS) $(ENTRY_OBJECTS) $(SHIM_LDFLAGS) -ldl
	$(Q)ln -sf $(LIBRARY) $@.$(SOVERSION)

# Everything below the wrappers, for the unit tests and the command.
$(BUILD)/libunit.a: $(FLOOR_OBJECTS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/bounceio: $(CLI_OBJECTS) $(BUILD)/libunit.a
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ $(LDFLAGS) $(VARIANT_FLAGS) -pthread -ldl

# What requests run through is built for speed, the rest for size: a program without direct I/O pays for it in memory alone.
HOT := base/process bounce/copy bounce/copy_x86_64 bounce/pool checksum/announce checksum/block_sum checksum/flight \
	checksum/question checksum/sum_copy checksum/window engine/chunk engine/handover engine/issue engine/part engine/read \
	engine/request engine/vector engine/verify engine/write entry/descriptors entry/rw files/descriptor files/file files/offset \
	rings/slot rings/aio_context rings/aio_reap rings/aio_submit rings/uring_enter rings/uring_numbers rings/uring_pump \
	rings/uring_stage rings/uring_submit
SIZE_FLAGS = $(if $(findstring -O2,$(CFLAGS)),$(if $(filter $(HOT:%=shim/%.c),$<),,-Os))

$(BUILD)/obj/shim/%.o: shim/%.c
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(SHIM_CFLAGS) $(SIZE_FLAGS) -c -o $@ $<

# The fault guard recognises this code by its section, so all of it must be there, and none of it may call out of it:
# always optimised, never instrumented.
HASH_CFLAGS = $(SHIM_CFLAGS) $(XXHASH_CFLAGS) -O2 -fno-sanitize=all -fno-stack-protector -fno-profile-arcs \
	-fno-test-coverage $(foreach option,-fno-instrument-functions -fno-reorder-functions \
	-fno-reorder-blocks-and-partition,$(call cc_option,$(option)))
cc_option = $(shell $(CC) -Werror $(1) -c -x c -o /dev/null /dev/null 2>/dev/null && echo $(1))

define compile_guarded
$(call say,CC,$@)
@mkdir -p $(@D)
$(Q)$(CC) $(HASH_CFLAGS) $(HASH_FLAGS_$*) -c -o $@ $<
$(Q)$(OBJCOPY) --rename-section .text=guarded_text,alloc,load,readonly,code,contents $@
endef

$(HASH_OBJECTS): HASH_CFLAGS += -DBLOCK_HASH_VARIANT=$*
$(HASH_OBJECTS): $(BUILD)/obj/shim/checksum/block_hash_%.o: $(BLOCK_HASH)
	$(compile_guarded)

$(SUM_COPY_OBJECTS): HASH_CFLAGS += -DSUM_COPY_VARIANT=$*
$(SUM_COPY_OBJECTS): $(BUILD)/obj/shim/checksum/sum_copy_%.o: $(SUM_COPY)
	$(compile_guarded)

# The version script is the table of wrapped symbols. It is anonymous: with a version name, the dynamic linker would
# not match a program's reference to pread@GLIBC_2.2.5.
define MAP_SOURCE
#include "base/symbols.h"
#define CALL(result, name, ...) name;
#define ALIAS(alias, name) alias;
#define CHECKED(name) name;
{ global: NEXT_CALLS(CALL) NEXT_VARIADIC(CALL) NEXT_LIBC(CALL) NEXT_ALIASES(ALIAS) NEXT_CHECKED(CHECKED) NEXT_RAW(CHECKED) NEXT_URING(CHECKED)
bounceio_*; local: *; };
endef
export MAP_SOURCE

$(BUILD)/shim.map: shim/base/symbols.h Makefile
	$(call say,GEN,$@)
	@mkdir -p $(@D)
	$(Q)printf '%s\n' "$$MAP_SOURCE" | $(CC) -E -P -undef -Ishim -x c - >$@

PC = sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@INCLUDEDIR@|$(INCLUDEDIR)|; s|@VERSION@|$(VERSION)|'

$(BUILD)/bounceio.pc: bounceio.pc.in Makefile
	$(call say,GEN,$@)
	@mkdir -p $(@D)
	$(Q)$(PC) $< >$@

# ---- Tests and examples ----

$(BUILD)/obj/tests/%.o: tests/%.c
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(TEST_CFLAGS) $(if $(filter tests/unit/% tests/fuzz/% tests/schedule/%,$<),$(VARIANT_FLAGS)) -c -o $@ $<

$(BUILD)/libsupport.a: $(SUPPORT_OBJECTS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(UNIT_TESTS): $(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(BUILD)/libsupport.a $(BUILD)/libunit.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ $(LDFLAGS) $(VARIANT_FLAGS) $(CHECK_LIBS) -pthread -ldl

# Not instrumented by a sanitizer, and not linked with the shim: programs as a user would have them.
$(SHIM_TESTS): $(BUILD)/tests/shim/%: $(BUILD)/obj/tests/shim/%.o $(BUILD)/libsupport.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ $(LDFLAGS) $(ASYNC_LIBS) $(CHECK_LIBS) -pthread -ldl

$(TORTURES): $(BUILD)/%: $(BUILD)/obj/%.o $(TORTURE_OBJECTS) $(BUILD)/libsupport.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ $(LDFLAGS) $(CHECK_LIBS) -pthread -ldl

$(TEST_LIBRARIES): $(BUILD)/%.so: %.c
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(TEST_CFLAGS) -fPIC -shared -o $@ $< $(LDFLAGS)

$(EXAMPLES): $(BUILD)/%: %.c
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(COMMON_CFLAGS) $(CFLAGS) -o $@ $< $(LDFLAGS) $(if $(filter examples/aio% examples/uring%,$<),$(ASYNC_LIBS))

# A program as a user would have it, but for the hash, which it measures the floor with. It looks the libraries' functions up by name.
$(BUILD)/tests/bench/bench: $(BENCH_OBJECTS) $(HASH_OBJECTS)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ $(LDFLAGS) -Wl,--no-as-needed -laio -luring -pthread -ldl

$(BENCH_INTERNALS): $(BUILD)/obj/tests/bench/internals.o $(BUILD)/libsupport.a $(BUILD)/libunit.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ $(LDFLAGS) $(VARIANT_FLAGS) $(CHECK_LIBS) -pthread -ldl

$(BENCH_IDLE): $(BUILD)/obj/tests/bench/idle.o
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ $(LDFLAGS) -ldl

$(FUZZERS): $(BUILD)/tests/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(FUZZ_OBJECTS) $(BUILD)/libunit.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ $(LDFLAGS) $(VARIANT_FLAGS) -fsanitize=fuzzer \
		-Wl,--wrap=step_reach,--wrap=process_lock,--wrap=process_block_signals -pthread -ldl

examples: $(EXAMPLES)
tests: $(TEST_PROGRAMS) $(TEST_LIBRARIES)
tortures: $(TORTURES)

# The models of the map's protocols: programs of their own, that share no code with the shim.
MODEL_OBJECTS := $(call object,$(wildcard tests/model/*.c))

$(BUILD)/model: $(MODEL_OBJECTS)
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ $(LDFLAGS)

# The protocol's code under a scheduler, which takes part in every step: VARIANT=steps only.
SCHEDULE_OBJECTS := $(call object,$(wildcard tests/schedule/*.c) tests/model/notation.c)

$(BUILD)/schedule: $(SCHEDULE_OBJECTS) $(BUILD)/libsupport.a $(BUILD)/libunit.a
	$(call say,LD,$@)
	$(Q)$(CC) -o $@ $^ $(LDFLAGS) $(VARIANT_FLAGS) -Wl,--wrap=store_lock_file $(CHECK_LIBS) -pthread -ldl

# T=NAME runs only the tests whose name contains NAME.
T ?=
RUN = CC='$(CC)' tests/run.sh --build $(BUILD)

# First what is missing, then a new make, which sees what was installed.
demo: deps-build
	$(Q)$(MAKE) --no-print-directory all $(BUILD)/examples/racer
	$(Q)tests/demo.sh $(BUILD)

check: deps-build deps-check
	$(Q)$(MAKE) --no-print-directory all examples tests $(BUILD)/model
	$(Q)$(MAKE) --no-print-directory VARIANT=steps BUILD=$(BUILD)/steps all $(BUILD)/steps/schedule
	$(Q)$(RUN) unit shim -- $(T)

# Every interleaving of the map's protocols, and of their code: a few minutes, 2 GiB of memory.
model: deps-build deps-check
	$(Q)$(MAKE) --no-print-directory $(BUILD)/model
	$(Q)$(MAKE) --no-print-directory VARIANT=steps BUILD=$(BUILD)/steps $(BUILD)/steps/schedule
	$(Q)$(BUILD)/model --all
	$(Q)$(BUILD)/steps/schedule --long

check-apps: deps-build deps-check deps-apps
	$(Q)$(MAKE) --no-print-directory all
	$(Q)$(RUN) apps -- $(T)

check-asan check-tsan: check-%: deps-build deps-check
	$(Q)$(MAKE) --no-print-directory VARIANT=$* BUILD=$(BUILD_$*) all examples tests
	$(Q)CC='$(CC)' tests/run.sh --build $(BUILD_$*) --sanitizer $* unit shim -- $(T)

check-valgrind: deps-build deps-check deps-lint
	$(Q)$(MAKE) --no-print-directory all tests
	$(Q)$(RUN) --valgrind unit -- $(T)

# Whatever a map, a session or the shared page says: RUNS inputs for each target, or FUZZ_SECONDS.
RUNS ?= 10000000
FUZZ_SECONDS ?= 0
fuzz: deps-build deps-lint
	$(Q)$(MAKE) --no-print-directory VARIANT=fuzz CC=clang fuzzers
	$(Q)tests/fuzz/run.sh $(BUILD_fuzz) $(RUNS) $(FUZZ_SECONDS)

fuzzers: $(FUZZERS)

# Writers killed at random moments, devices that lose power, long versions of other tests. TORTURE_KILLS, TORTURE_CUTS: how many of
# each; SLICE=1: two minutes of it.
TORTURE_KILLS ?= $(if $(SLICE),50,500)
TORTURE_CUTS ?= $(if $(SLICE),28,200)
torture: deps-build deps-check
	$(Q)$(MAKE) --no-print-directory all tests tortures
	$(Q)$(MAKE) --no-print-directory VARIANT=steps BUILD=$(BUILD)/steps all
	$(Q)TORTURE_SLICE=$(SLICE) TORTURE_KILLS=$(TORTURE_KILLS) TORTURE_CUTS=$(TORTURE_CUTS) $(RUN) torture -- $(T)
	$(if $(T),,$(Q)$(MAKE) --no-print-directory fuzz RUNS=-1 FUZZ_SECONDS=20)

# Zero-copy and bounced requests in turns, on every file system. QUICK=1: a minute of it; CHECK=1: fail when a target is missed.
bench: deps-build deps-check deps-bench
	$(Q)$(MAKE) --no-print-directory all $(BENCHES)
	$(Q)tests/bench/run.sh $(BUILD) $(if $(QUICK),--quick) $(if $(CHECK),--check)

# What a program that never uses O_DIRECT pays; fails beyond the limits.
bench-idle: deps-build
	$(Q)$(MAKE) --no-print-directory all $(BUILD)/tests/bench/idle
	$(Q)LD_PRELOAD=$(abspath $(BUILD)/$(LIBRARY)) $(BUILD)/tests/bench/idle --check

# Scrub on a RAM-backed file system and on the disk.
bench-scrub: deps-build
	$(Q)$(MAKE) --no-print-directory all
	$(Q)tests/bench/scrub.sh $(BUILD) --check

lint: deps-build deps-lint
	$(Q)$(MAKE) --no-print-directory all
	$(Q)CC='$(CC)' tests/lint/lint.sh $(BUILD)

# ---- Set-up and installation ----

deps: deps-build deps-check deps-lint

deps-build deps-check deps-lint deps-apps deps-bench: deps-%:
	$(Q)PKG_CONFIG='$(PKG_CONFIG)' .ci/deps $*

install: all
	$(INSTALL) -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR)
	$(INSTALL) -m 755 $(BUILD)/$(LIBRARY) $(DESTDIR)$(LIBDIR)/$(LIBRARY).$(VERSION)
	ln -sf $(LIBRARY).$(VERSION) $(DESTDIR)$(LIBDIR)/$(LIBRARY).$(SOVERSION)
	ln -sf $(LIBRARY).$(SOVERSION) $(DESTDIR)$(LIBDIR)/$(LIBRARY)
	$(PC) bounceio.pc.in >$(DESTDIR)$(LIBDIR)/pkgconfig/bounceio.pc
	$(INSTALL) -m 644 include/bounceio.h $(DESTDIR)$(INCLUDEDIR)/bounceio.h
	$(INSTALL) -d $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man7
	$(INSTALL) -m 644 shim/man/bounceio.1 $(DESTDIR)$(MANDIR)/man1/bounceio.1
	$(INSTALL) -m 644 shim/man/libbounceshim.7 $(DESTDIR)$(MANDIR)/man7/libbounceshim.7
ifneq ($(CLI_OBJECTS),)
	$(INSTALL) -d $(DESTDIR)$(BINDIR)
	$(INSTALL) -m 755 $(BUILD)/bounceio $(DESTDIR)$(BINDIR)/bounceio
endif

uninstall:
	rm -f $(DESTDIR)$(LIBDIR)/$(LIBRARY).$(VERSION) $(DESTDIR)$(LIBDIR)/$(LIBRARY).$(SOVERSION) \
		$(DESTDIR)$(LIBDIR)/$(LIBRARY) $(DESTDIR)$(LIBDIR)/pkgconfig/bounceio.pc \
		$(DESTDIR)$(INCLUDEDIR)/bounceio.h $(DESTDIR)$(BINDIR)/bounceio \
		$(DESTDIR)$(MANDIR)/man1/bounceio.1 $(DESTDIR)$(MANDIR)/man7/libbounceshim.7

clean:
	rm -rf build build-asan build-tsan build-fuzz

.PHONY: all examples tests tortures demo check check-apps check-asan check-tsan check-valgrind model torture fuzz fuzzers bench bench-idle bench-scrub lint install uninstall clean \
	deps deps-build deps-check deps-lint deps-apps deps-bench
.DELETE_ON_ERROR:
.SECONDARY:

-include $(patsubst %.o,%.d,$(FLOOR_OBJECTS) $(ENTRY_OBJECTS) $(CLI_OBJECTS) $(SUPPORT_OBJECTS) $(MODEL_OBJECTS) $(SCHEDULE_OBJECTS))
-include $(patsubst $(BUILD)/%,$(BUILD)/obj/%.d,$(TEST_PROGRAMS)) $(EXAMPLES:%=%.d) $(BENCH_OBJECTS:.o=.d) $(patsubst $(BUILD)/%,$(BUILD)/obj/%.d,$(BENCH_IDLE) $(BENCH_INTERNALS)) $(FUZZ_OBJECTS:%.o=%.d) $(patsubst $(BUILD)/%,$(BUILD)/obj/%.d,$(FUZZERS)) $(TEST_LIBRARIES:%.so=%.d)
-include $(patsubst %.o,%.d,$(TORTURE_OBJECTS)) $(patsubst $(BUILD)/%,$(BUILD)/obj/%.d,$(TORTURES))
