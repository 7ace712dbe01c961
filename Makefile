# quoll: `make help` lists the targets.
#
# CONFIG picks the folder of the objects (build/CONFIG) and the flags: release, asan, tsan, emu.

CC      ?= cc
CONFIG  ?= release
B       := build/$(CONFIG)
ROOMS   := quant weights kernels model tokenizer tools

WARN    := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
WERROR  ?=
# No contraction: a*b+c is two roundings unless fmaf is written (docs/numerics.md, rule 5).
# No math errno: sqrtf, rint and fmaf become instructions; it changes no result.
CFLAGS  ?= -O2 -g
CONFIG_FLAGS_release :=
CONFIG_FLAGS_asan := -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
CONFIG_FLAGS_tsan := -O1 -fsanitize=thread
# AVX-512 in plain C (SIMDe), so that a machine without it can check the logic of those kernels.
CONFIG_FLAGS_emu := -DQUOLL_EMULATE_AVX512
ALL_CFLAGS := -std=c17 -D_GNU_SOURCE -I. $(CFLAGS) $(WARN) $(WERROR) -ffp-contract=off -fno-math-errno \
              -fopenmp -MMD -MP $(CONFIG_FLAGS_$(CONFIG)) $(EXTRA_CFLAGS)
PKGS    := jansson libpcre2-8 libutf8proc libedit
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
LDLIBS  := $(PKG_LIBS) -lm
TEST_LIBS := $(shell pkg-config --libs check 2>/dev/null)

# Only these files get a CPU level's instructions; the level is picked at run time.
AVX2    := -mavx2 -mfma -mf16c
AVX512  := $(AVX2) -mavx512f -mavx512bw -mavx512dq -mavx512vl
%_avx2.o:    ISA_FLAGS := $(AVX2)
%_avxvnni.o: ISA_FLAGS := $(AVX2) -mavxvnni
ifeq ($(CONFIG),emu)
%_avx512.o:  ISA_FLAGS := $(AVX2)
%_vnni.o:    ISA_FLAGS := $(AVX2)
else
%_avx512.o:  ISA_FLAGS := $(AVX512)
%_vnni.o:    ISA_FLAGS := $(AVX512) -mavx512vnni
endif

objs = $(patsubst %.c,$(B)/%.o,$(wildcard $(1)/*.c))
LIB_OBJS := $(foreach r,$(filter-out tools,$(ROOMS)),$(call objs,$(r)))
TOOL_OBJS := $(call objs,tools)
TEST_OBJS := $(B)/tests/main.o $(foreach r,$(ROOMS),$(call objs,tests/$(r)))

all: quoll

quoll: $(B)/quoll
	cp -f $< $@

$(B)/quoll: $(LIB_OBJS) $(TOOL_OBJS)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/run-tests: $(TEST_OBJS) $(LIB_OBJS) $(filter-out $(B)/tools/main.o,$(TOOL_OBJS))
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(TEST_LIBS) $(LDLIBS)

# One room's tests with only the rooms below it: make test-quant
NEEDS_quant := quant
NEEDS_weights := quant weights
NEEDS_kernels := quant kernels
NEEDS_model := quant weights kernels model
NEEDS_tokenizer := quant weights tokenizer
define room_tests
$(B)/run-tests-$(1): $(B)/tests/main.o $(call objs,tests/$(1)) $(foreach r,$(NEEDS_$(1)),$(call objs,$(r))) \
    $(if $(filter tokenizer,$(1)),$(wildcard $(B)/tools/vocab.o) $(patsubst %.c,$(B)/%.o,$(wildcard tools/vocab.c)))
	$$(CC) $$(ALL_CFLAGS) $$(LDFLAGS) -o $$@ $$(sort $$^) $$(TEST_LIBS) $$(LDLIBS)
test-$(1): $(B)/run-tests-$(1)
	$$<
.PHONY: test-$(1)
endef
$(foreach r,$(filter-out tools,$(ROOMS)),$(eval $(call room_tests,$(r))))

test: quoll $(B)/run-tests
	$(B)/run-tests

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ISA_FLAGS) $(PKG_CFLAGS) -c -o $@ $<

clean:
	rm -rf build quoll

.PHONY: all test clean
-include $(shell find $(B) -name '*.d' 2>/dev/null)
