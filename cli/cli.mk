# healthmate, the command line.  Included by the root Makefile.

CLI_SRC = $(wildcard cli/*.c)
CLI_OBJ = $(CLI_SRC:%.c=$(BUILD)/%.o)

.PHONY: cli
cli: $(BUILD)/healthmate

$(BUILD)/healthmate: $(CLI_OBJ) $(LIB)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(CLI_OBJ) $(LIB) -lpq -lcurl $(LIB_LIBS)

-include $(CLI_OBJ:.o=.d)
