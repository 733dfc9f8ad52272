# healthmate-worker: `make worker`.  Included by the root Makefile.

HMW_SRC = $(wildcard worker/*.c)
HMW_OBJ = $(HMW_SRC:%.c=$(BUILD)/%.o)

.PHONY: worker
worker: $(WORKER)

$(WORKER): $(HMW_OBJ) $(LIB)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(HMW_OBJ) $(LIB) \
		-lpq -lhiredis -lcurl $(LIB_LIBS)

# The tests include the sources of what they test.
$(BUILD)/unit/rollup_test $(BUILD)/fuzz/rollup_key: worker/stats.c \
	worker/ukey.c worker/hmw_stats.h worker/hmw_ukey.h

$(BUILD)/fuzz/rollup_key: worker/mail_text.c worker/hmw_mail.h

$(BUILD)/unit/mail_test: worker/mail_text.c worker/mail_conf.c worker/ukey.c \
	worker/hmw_mail.h worker/hmw_ukey.h

-include $(HMW_OBJ:.o=.d)
