# HealthMate: one door to everything.  `make help` lists the targets.
# Layers: libhealthmate (pure C) <- module, worker, cli.  See docs/.

CC      ?= gcc
BUILD   ?= build
OPT     ?= -O2
CPPFLAGS += -Ilibhealthmate -I$(BUILD)/gen -D_GNU_SOURCE
CFLAGS  += $(OPT) -g -std=gnu11 -fPIC -fvisibility=hidden \
	-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wformat=2 -Wno-unused-parameter -Werror \
	-fstack-protector-strong -D_FORTIFY_SOURCE=2
LDFLAGS += -Wl,-z,relro,-z,now
LIB_LIBS = -ljansson -ljwt -largon2 -lunistring -lcrypto -lm -lpthread

LIB_SRC  = $(wildcard libhealthmate/*.c libhealthmate/resources/*.c)
LIB_OBJ  = $(LIB_SRC:%.c=$(BUILD)/%.o)
LIB      = $(BUILD)/libhealthmate.a

UNIT_SRC = $(wildcard t/unit/*_test.c)
UNIT_BIN = $(UNIT_SRC:t/unit/%.c=$(BUILD)/unit/%)

.PHONY: all lib unit clean

all: lib

lib: $(LIB)

$(LIB): $(LIB_OBJ)
	@rm -f $@
	@ar rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(dir $@)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/unit/%: t/unit/%.c $(LIB)
	@mkdir -p $(dir $@)
	$(CC) $(CPPFLAGS) $(CFLAGS) -o $@ $< $(LIB) -lcmocka $(LIB_LIBS)

unit: $(UNIT_BIN)
	@for t in $(UNIT_BIN); do $$t || exit 1; done

clean:
	rm -rf $(BUILD)

-include $(LIB_OBJ:.o=.d)
