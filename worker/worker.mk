# healthmate-worker: included by the root Makefile.  `make worker`.

HMW_SRC  = $(wildcard worker/*.c)
HMW_OBJ  = $(HMW_SRC:%.c=$(BUILD)/%.o)
HMW_LIBS = -lpq -lhiredis
HMW_PURE = $(BUILD)/worker/stats.o $(BUILD)/worker/ukey.o

.PHONY: worker

all: worker
worker: $(BUILD)/healthmate-worker

$(HMW_OBJ): CPPFLAGS += -Iworker -I$(shell pg_config --includedir 2>/dev/null || echo /usr/include/postgresql)
$(HMW_OBJ): CFLAGS += -fPIE

$(BUILD)/healthmate-worker: $(HMW_OBJ) $(LIB)
	$(CC) $(CFLAGS) -pie $(LDFLAGS) -o $@ $(HMW_OBJ) $(LIB) $(HMW_LIBS) $(LIB_LIBS)

# Its pure parts, for the unit test.
$(BUILD)/unit/rollup_test: t/unit/rollup_test.c $(HMW_PURE) $(LIB)
	@mkdir -p $(dir $@)
	$(CC) $(CPPFLAGS) -Iworker $(CFLAGS) -o $@ $< $(HMW_PURE) $(LIB) -lcmocka $(LIB_LIBS)

-include $(HMW_OBJ:.o=.d)
