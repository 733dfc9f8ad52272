# healthmate, the command line.  Included by the root Makefile.

CLI_SRC  = $(wildcard cli/*.c)
CLI_OBJ  = $(CLI_SRC:%.c=$(BUILD)/%.o)
CLI_LIBS = -lpq -lcurl

.PHONY: cli

cli: $(BUILD)/healthmate

$(CLI_OBJ): CPPFLAGS += -I$(shell pg_config --includedir)

$(BUILD)/healthmate: $(CLI_OBJ) $(LIB)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(CLI_OBJ) $(LIB) $(CLI_LIBS) $(LIB_LIBS)

# libFuzzer: the scanner of bundles and the reading of an observation.
$(BUILD)/fuzz/fhir: fuzz/fhir.c cli/fhir.c cli/arena.c $(LIB)
	@mkdir -p $(dir $@)
	clang $(CPPFLAGS) -I$(shell pg_config --includedir) -g -O1 \
		-fsanitize=fuzzer,address,undefined -o $@ fuzz/fhir.c \
		$(LIB) $(LIB_LIBS)

-include $(CLI_OBJ:.o=.d)
