# The benchmark's own programs.  Used by bench/run: make -f bench/bench.mk
# from the root; the library must have been built (make lib).

BUILD   ?= build
LIB      = $(BUILD)/libhealthmate.a
CFLAGS  += -O2 -g -std=gnu11 -Wall -Wextra -Wshadow -Wno-unused-parameter \
	-Werror -D_GNU_SOURCE -Ilibhealthmate -I$(shell pg_config --includedir)
LIBS     = -ljansson -ljwt -largon2 -lunistring -lcrypto -lm -lpthread

all: $(BUILD)/bench/seed $(BUILD)/bench/sql

$(BUILD)/bench/%: bench/%.c $(LIB)
	@mkdir -p $(dir $@)
	$(CC) $(CFLAGS) -o $@ $< $(LIB) -lpq $(LIBS)
