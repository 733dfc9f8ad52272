# HealthMate: one door to everything.  `make help` lists the targets.
# Layers: libhealthmate (pure C) <- module, worker, cli.  See docs/.

CC      ?= gcc
BUILD   ?= build
OPT     ?= -O2
CPPFLAGS += -Ilibhealthmate -D_GNU_SOURCE
CFLAGS  += $(OPT) -g -std=gnu11 -fPIC -fvisibility=hidden \
	-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wformat=2 -Wno-unused-parameter -Werror \
	-fstack-protector-strong -D_FORTIFY_SOURCE=2
LDFLAGS += -Wl,-z,relro,-z,now -Wl,--as-needed
LIB_LIBS = -ljansson -ljwt -largon2 -lunistring -lfido2 \
	-loath -lqrencode -lcrypto -lm -lpthread
PG_INC  := -I$(shell pg_config --includedir 2>/dev/null || echo .)

LIB_SRC  = $(wildcard libhealthmate/*.c libhealthmate/resources/*.c)
LIB_OBJ  = $(LIB_SRC:%.c=$(BUILD)/%.o)
LIB      = $(BUILD)/libhealthmate.a

UNIT_SRC = $(wildcard t/unit/*_test.c)
UNIT_BIN = $(UNIT_SRC:t/unit/%.c=$(BUILD)/unit/%)

FUZZ_SRC = $(wildcard fuzz/*.c)
FUZZ_BIN = $(FUZZ_SRC:fuzz/%.c=$(BUILD)/fuzz/%)
FUZZ_OBJ = $(LIB_SRC:%.c=$(BUILD)/fuzz/obj/%.o)
FUZZ_CC  = clang -std=gnu11 -g -O1 -fno-omit-frame-pointer
FUZZ_SAN = -fsanitize=address,undefined -fno-sanitize-recover=undefined
FUZZ_SECONDS ?= 60

WORKER   = $(BUILD)/healthmate-worker
CLI      = $(BUILD)/healthmate

DESTDIR ?=
PREFIX  ?= /usr/local

.PHONY: all help lib module worker cli unit unit-build lint run up down test \
	test-long bench asan fuzz install clean

all: lib module worker cli

help:
	@echo 'run          start the local stack in the foreground'
	@echo 'up, down     the same in the background, and stop it'
	@echo 'test         everything deploy/test runs (unit, sql, api, ...)'
	@echo 'test-long    the same with full counts'
	@echo 'unit, lint   the quick ones'
	@echo 'module, worker, cli, lib   one part of the build'
	@echo 'asan, fuzz   sanitizer nginx, fuzzers'
	@echo 'bench        the benchmark rows (bench/README.md)'
	@echo 'install      CLI, worker and module below $$(PREFIX)'
	@echo 'clean        remove $(BUILD)/'

lib: $(LIB)

$(LIB): $(LIB_OBJ)
	@rm -f $@
	@ar rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(dir $@)
	$(CC) $(CPPFLAGS) $(PG_INC) $(CFLAGS) -MMD -MP -c -o $@ $<

module: $(LIB)
	@tools/build-module

$(BUILD)/unit/%: t/unit/%.c $(LIB)
	@mkdir -p $(dir $@)
	$(CC) $(CPPFLAGS) $(CFLAGS) -o $@ $< $(LIB) -lcmocka $(LIB_LIBS)

unit-build: $(UNIT_BIN)

unit: $(UNIT_BIN)
	@for t in $(UNIT_BIN); do $$t || exit 1; done

lint:
	@tools/lint

run up down test:
	@deploy/$@

test-long:
	@HEALTHMATE_TEST_LONG=1 deploy/test

bench: all
	@bench/run

asan: $(LIB)
	@tools/build-asan

# Each fuzzer for FUZZ_SECONDS, over its corpus when there is one.
fuzz: $(FUZZ_BIN)
	@for f in $(FUZZ_BIN); do \
		d=$(BUILD)/fuzz/corpus/$$(basename $$f); mkdir -p $$d; \
		s=fuzz/corpus/$$(basename $$f); [ -d $$s ] || s=; \
		echo "fuzz: $$f"; \
		$$f -max_total_time=$(FUZZ_SECONDS) -verbosity=0 \
			-print_final_stats=0 -artifact_prefix=$(BUILD)/fuzz/ \
			$$d $$s || exit 1; \
	done

$(BUILD)/fuzz/obj/%.o: %.c
	@mkdir -p $(dir $@)
	@$(FUZZ_CC) $(CPPFLAGS) $(PG_INC) $(FUZZ_SAN) -fsanitize=fuzzer-no-link \
		-MMD -MP -c -o $@ $<

$(BUILD)/fuzz/%: fuzz/%.c $(FUZZ_OBJ)
	@mkdir -p $(dir $@)
	@$(FUZZ_CC) $(CPPFLAGS) $(PG_INC) $(FUZZ_SAN) -fsanitize=fuzzer \
		-o $@ $< $(FUZZ_OBJ) $(LIB_LIBS)

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/healthmate
	install -m 755 $(CLI) $(WORKER) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(BUILD)/ngx_http_healthmate_module.so \
		$(DESTDIR)$(PREFIX)/lib/healthmate

clean:
	rm -rf $(BUILD)

-include $(LIB_OBJ:.o=.d) $(FUZZ_OBJ:.o=.d)

# The rooms' own rules.
-include worker/worker.mk cli/cli.mk
