# quoll: `make help` lists the targets.
#
# CONFIG picks the folder of the objects (build/CONFIG) and the flags: release, asan, tsan, emu.

CC      ?= cc
CONFIG  ?= release
B       := build/$(CONFIG)
PREFIX  ?= /usr/local
ROOMS   := quant weights kernels model lab tokenizer tools
MODEL   := weights/SmolLM2-135M-Instruct.Q4_1.gguf

# ---- Flags ---------------------------------------------------------------------------------------

WARN    := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
WERROR  ?=
CFLAGS  ?= -O2 -g
# The tests of one configuration run with these variables set.
TEST_ENV := QUOLL_BIN=$(B)/quoll

# Address and undefined-behaviour sanitizers. A leak or an undefined shift ends the test, not only a
# crash; frame pointers for whole stack traces.
# -DQUOLL_SMALL_KERNELS: the products' loops are not inlined into every type, and compile in seconds.
CONFIG_FLAGS_asan := -DQUOLL_SMALL_KERNELS -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
TEST_ENV_asan := ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1 \
                 UBSAN_OPTIONS=print_stacktrace=1 CK_TIMEOUT_MULTIPLIER=10 QUOLL_TEST_JOBS=$(shell nproc)
# Races. Built by clang: gcc's OpenMP runtime is not instrumented and every barrier of it looks like a
# race. Archer tells the sanitizer what the OpenMP runtime synchronises; modules that are not
# instrumented (that runtime itself) are then left alone.
CONFIG_FLAGS_tsan := -DQUOLL_SMALL_KERNELS -O1 -fsanitize=thread
TEST_ENV_tsan = OMP_TOOL_LIBRARIES=$(abspath $(shell $(CC) -print-resource-dir)/../../libarcher.so) \
                TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1 CK_TIMEOUT_MULTIPLIER=10 \
                QUOLL_TEST_JOBS=$(shell nproc)
# The kernels of CPU levels above AVX2 in plain C (SIMDe and our own), so that any machine checks their logic.
CONFIG_FLAGS_emu := -DQUOLL_SMALL_KERNELS -DQUOLL_EMULATE_AVX512 -O1
TEST_ENV_emu := CK_TIMEOUT_MULTIPLIER=10
CONFIG_FLAGS := $(CONFIG_FLAGS_$(CONFIG))

# -ffp-contract=off: a*b+c is two roundings unless fmaf is written (docs/numerics.md, rule 5).
# -fno-math-errno: sqrtf, rint and fmaf become instructions; it changes no result.
# -fopenmp: threads. -MMD -MP: each object lists the headers it was made from, in a .d beside it.
ALL_CFLAGS := -std=c17 -D_GNU_SOURCE -I. $(CFLAGS) $(WARN) $(WERROR) -ffp-contract=off -fno-math-errno \
              -fopenmp -MMD -MP $(CONFIG_FLAGS)
LINK    := $(CC) $(CFLAGS) -fopenmp $(CONFIG_FLAGS) $(LDFLAGS)

PKGS    := jansson libpcre2-8 libutf8proc libprotobuf-c libedit libmd openblas
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LDLIBS  := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm -ldl
TEST_LIBS := $(shell pkg-config --libs check 2>/dev/null)

# CUDA: kernels/cuda/ becomes a plug-in, libquoll-cuda.so beside the program, where nvcc and a GPU are (CUDA=1:
# in any case; CUDA=0: never). CUDA_ARCHS: the compute capabilities that it has machine code for, this machine's
# or all that are supported; and PTX of the last one for what comes after.
NVCC    ?= nvcc
GPUS    := $(sort $(subst .,,$(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null)))
CUDA    ?= $(if $(and $(GPUS),$(shell command -v $(NVCC))),1,0)
CUDA_ALL := 80 86 89 90a 120
CUDA_ARCHS ?= $(or $(patsubst 90,90a,$(GPUS)),$(CUDA_ALL))
# Exact arithmetic (docs/numerics.md): nothing fused that is not written so, denormals kept, IEEE division and
# square root. Host code is compiled as C++ is for the tests below.
NVCC_FLAGS := -std=c++17 -O3 -I. --fmad=false -ftz=false -prec-div=true -prec-sqrt=true -Xcompiler \
              -fPIC,-Wall,-fno-strict-aliasing,-ffp-contract=off --cudart static $(if $(WERROR),-Werror all-warnings)
cuda_code = $(foreach a,$(1),-gencode=arch=compute_$(a),code=sm_$(a)) \
            -gencode=arch=compute_$(lastword $(1)),code=compute_$(lastword $(1))
CUDA_SOURCES := $(wildcard kernels/cuda/*.cu)

# The host executor (tests/cuda/executor.h): the same files as C++ with CUDA's functions in plain C. Compiled
# without run-time library, so that the C compiler links it; -fno-lifetime-dse keeps the zeros in gaps of
# arguments. ThreadSanitizer knows no fibers: no executor there.
CXX     ?= g++
EXECUTOR_FLAGS := -x c++ -std=c++17 -I. -DQUOLL_CUDA_HOST $(CFLAGS) -Wall -Wextra $(WERROR) -Wno-unknown-pragmas \
                  -ffp-contract=off -fno-math-errno -fno-exceptions -fno-rtti -fno-threadsafe-statics -fno-lifetime-dse -MMD -MP \
                  $(CONFIG_FLAGS) $(if $(shell grep -m1 -ow fma /proc/cpuinfo),-mfma) $(if $(filter asan,$(CONFIG)),-fno-sanitize=vptr)
ifeq ($(CONFIG),tsan)
ALL_CFLAGS += -DQUOLL_NO_EXECUTOR
else
EXECUTOR_OBJS = $(B)/tests/cuda/executor.o $(patsubst kernels/cuda/%.cu,$(B)/tests/cuda/%.o,$(CUDA_SOURCES))
endif

# Only these files get a CPU level's instructions; the level is picked at run time.
# -O3 there: their loops over registers must be unrolled and their plain loops vectorised. -g1: what a
# debugger would know of variables after all that inlining takes half of the compiler's time.
AVX2    := -mavx2 -mfma -mf16c $(if $(filter release,$(CONFIG)),-O3 -g1)
AVX512  := $(AVX2) -mavx512f -mavx512bw -mavx512dq -mavx512vl
%_avx2.o:    ISA_FLAGS := $(AVX2)
# Packing is most of a load's time, and all vectorisable loops; so are columns moved by GPTQ.
%/pack.o %/pack_rows.o %/lab/gptq.o: ISA_FLAGS := $(if $(filter release,$(CONFIG)),-O3)
# Without AVX gcc says much about how vectors of 8 would be passed; they are not, all is inlined.
quant_fit := $(if $(filter release,$(CONFIG)),-O3) -Wno-psabi
%/quant/fit.o: ISA_FLAGS := $(quant_fit)
%/quant/fit_avx2.o: ISA_FLAGS := $(AVX2) $(quant_fit)
# Loops over rows of logits, in vectors: gcc keeps comparisons of floats scalar while they may trap.
%/divergence.o: ISA_FLAGS := $(if $(filter release,$(CONFIG)),-O3 -fno-trapping-math)
ifeq ($(CONFIG),emu)
%_avxvnni.o: ISA_FLAGS := $(AVX2)
%_avx512.o:  ISA_FLAGS := $(AVX2)
%_vnni.o:    ISA_FLAGS := $(AVX2)
%_amx.o:     ISA_FLAGS := $(AVX2)
else
%_avxvnni.o: ISA_FLAGS := $(AVX2) -mavxvnni
%_avx512.o:  ISA_FLAGS := $(AVX512)
%_vnni.o:    ISA_FLAGS := $(AVX512) -mavx512vnni
%_amx.o:     ISA_FLAGS := $(AVX512) -mavx512vnni -mamx-tile -mamx-int8
endif

# ---- What people type ----------------------------------------------------------------------------
#
# These targets first let tools/setup.sh install what is missing, then start make afresh, so that
# pkg-config is asked again.

# V=1 shows the commands.
Q       := $(if $(V),,@)
SHOW    := @$(if $(V),:,echo) ' '
again = @+$(MAKE) --no-print-directory
run_tests = @$(TEST_ENV) $(TEST_ENV_$(CONFIG)) $(B)/run-tests

all: quoll ## build ./quoll (installs nothing)

chat: ## fetch the default model, build, talk to it
	@tools/setup.sh build model
	$(again) quoll model
	@./quoll chat -m $(MODEL) $(ARGS)

test: ## build and run every test
	@tools/setup.sh build test
	$(again) suite

bench: ## prompt and generation speed of the default model
	@tools/setup.sh build model
	$(again) quoll model
	@./quoll bench -m $(MODEL) $(ARGS)

bench-kernels: ## each kernel alone, beside the machine's limits (ARGS="-t 2 q4_k")
	@tools/setup.sh build
	$(again) $(B)/bench-kernels
	@$(B)/bench-kernels $(ARGS)

bench-types: ## generation of every type beside the read bandwidth: docs/types.csv and .svg
	@tools/setup.sh build plot
	$(again) quoll
	@tools/bench_types.sh ./quoll $(ARGS)

asan: ## every test under the address and undefined-behaviour sanitizers
	@tools/setup.sh build test
	$(again) CONFIG=asan suite

tsan: ## every test under the thread sanitizer (clang)
	@tools/setup.sh build test clang
	$(again) CONFIG=tsan CC=clang suite

emu: ## the AVX-512, AVX-VNNI and AMX kernels emulated: checks their logic, proves nothing about a real CPU
	@tools/setup.sh build test emu
	$(again) CONFIG=emu test-kernels

model: ## fetch the default model into weights/ (checked, and fetched again if damaged)
	@tools/setup.sh model
	@tools/fetch_model.sh

$(MODEL): model

SOURCES = $(wildcard $(addsuffix /*.[ch],$(ROOMS) $(addprefix tests/,$(ROOMS))) tests/*.[ch])

format: ## lay out the code with clang-format
	@tools/setup.sh lint
	clang-format -i $(SOURCES)

# The room's own flags are what clang-tidy parses with; the checks are in .clang-tidy.
lint: ## check the layout, clang-tidy, cppcheck
	@tools/setup.sh build test lint clang
	$(again) lint-format lint-tidy lint-cppcheck

install: quoll ## copy quoll to DESTDIR/PREFIX/bin (PREFIX=/usr/local)
	install -D -m 755 $(B)/quoll $(DESTDIR)$(PREFIX)/bin/quoll
	$(if $(filter 1,$(CUDA)),install -m 755 $(B)/libquoll-cuda.so $(DESTDIR)$(PREFIX)/bin/)

clean: ## remove everything that was built (weights/ stays)
	rm -rf build quoll

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: CC, CFLAGS, LDFLAGS, WERROR=-Werror, CONFIG=release|asan|tsan|emu, PREFIX, DESTDIR, ARGS (more options for chat and bench), V=1 (show the commands)."

.DEFAULT_GOAL := all
.PHONY: all chat test bench bench-kernels bench-types asan tsan emu model $(MODEL) format lint install clean help

# ---- How it is built -----------------------------------------------------------------------------

objs = $(patsubst %.c,$(B)/%.o,$(wildcard $(1)/*.c))
# What protoc-c makes of tokenizer/*.proto is not ours to warn about.
PROTO   := $(patsubst %.proto,$(B)/gen/%.pb-c,$(wildcard tokenizer/*.proto))
LIB_OBJS := $(PROTO:=.o) $(foreach r,$(filter-out tools,$(ROOMS)),$(call objs,$(r)))
TOOL_OBJS := $(call objs,tools)
TEST_OBJS := $(B)/tests/main.o $(foreach r,$(ROOMS),$(call objs,tests/$(r)))

# ./quoll is the release build; other configurations stay in their folder.
ifeq ($(CONFIG),release)
quoll: $(B)/quoll $(if $(filter 1,$(CUDA)),$(B)/libquoll-cuda.so)
	@cp -f $(B)/quoll $@
	@$(if $(filter 1,$(CUDA)),cp -f $(B)/libquoll-cuda.so .,rm -f libquoll-cuda.so)
else
quoll: $(B)/quoll
.PHONY: quoll
endif

$(B)/quoll: $(LIB_OBJS) $(TOOL_OBJS)
	$(SHOW) LD $@
	$(Q)$(LINK) -o $@ $^ $(LDLIBS)

$(B)/run-tests: $(TEST_OBJS) $(LIB_OBJS) $(EXECUTOR_OBJS) $(filter-out $(B)/tools/main.o,$(TOOL_OBJS))
	$(SHOW) LD $@
	$(Q)$(LINK) -o $@ $^ $(TEST_LIBS) $(LDLIBS)

$(B)/bench-kernels: $(B)/tests/bench_kernels.o $(LIB_OBJS) $(filter-out $(B)/tools/main.o,$(TOOL_OBJS))
	$(SHOW) LD $@
	$(Q)$(LINK) -o $@ $^ $(LDLIBS)

suite: $(B)/quoll $(B)/run-tests
	$(run_tests)

# One room's tests with only the rooms below it: make test-quant
NEEDS_quant := quant
NEEDS_weights := quant weights
NEEDS_kernels := quant kernels
NEEDS_model := quant weights kernels model
NEEDS_lab := quant weights kernels model lab
NEEDS_tokenizer := quant weights tokenizer
define room_tests
$(B)/run-tests-$(1): $(B)/tests/main.o $(call objs,tests/$(1)) $(foreach r,$(NEEDS_$(1)),$(call objs,$(r))) \
    $(if $(filter kernels model,$(1)),$(EXECUTOR_OBJS)) \
    $(if $(filter lab,$(1)),$(B)/tests/model/fixture.o $(B)/tests/model/gguf_edit.o) \
    $(if $(filter tokenizer,$(1)),$(PROTO:=.o) $(patsubst %.c,$(B)/%.o,$(wildcard tools/vocab*.c)))
	$$(SHOW) LD $$@
	$$(Q)$$(LINK) -o $$@ $$(sort $$^) $$(TEST_LIBS) $$(LDLIBS)
test-$(1): $(B)/run-tests-$(1)
	$$(run_tests)-$(1)
.PHONY: test-$(1)
endef
$(foreach r,$(filter-out tools,$(ROOMS)),$(eval $(call room_tests,$(r))))

# $(B)/flags changes when the compiler or its flags do, and every object with it.
FLAGS := $(CC) $(filter-out $(WERROR),$(ALL_CFLAGS)) $(AVX512) $(CXX) $(filter-out $(WERROR),$(EXECUTOR_FLAGS))
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' >$@

$(B)/tests/cuda/%.o: kernels/cuda/%.cu $(B)/flags
	@mkdir -p $(@D)
	$(SHOW) CXX $@
	$(Q)$(CXX) $(EXECUTOR_FLAGS) -c -o $@ $<

$(B)/cuda/%.o: kernels/cuda/%.cu $(B)/nvcc-flags
	@mkdir -p $(@D)
	$(SHOW) NVCC $@
	$(Q)$(NVCC) $(NVCC_FLAGS) $(call cuda_code,$(CUDA_ARCHS)) -MD -MP -MF $(@:.o=.d) -Xptxas -v -c -o $@ $< \
	    2>$(@:.o=.log) || { cat $(@:.o=.log) >&2; exit 1; }

$(B)/libquoll-cuda.so: $(patsubst kernels/cuda/%.cu,$(B)/cuda/%.o,$(CUDA_SOURCES))
	$(SHOW) LD $@
	$(Q)$(NVCC) --shared --cudart static -o $@ $^

# Every kernel for what CI compiles: warnings are errors, what ptxas says must be what is recorded.
cuda-check: ## compile every CUDA kernel, check registers, spills and shared memory against the recorded table
	$(again) B=build/cuda-check CUDA_ARCHS="80 90a 120" WERROR=-Werror build/cuda-check/libquoll-cuda.so
	@tests/cuda/ptxas.sh check build/cuda-check/cuda/*.log
.PHONY: cuda-check

$(B)/nvcc-flags: FORCE
	@mkdir -p $(@D)
	@echo '$(NVCC_FLAGS) $(CUDA_ARCHS)' | cmp -s - $@ || echo '$(NVCC_FLAGS) $(CUDA_ARCHS)' >$@

$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(SHOW) CC $@
	$(Q)$(CC) $(ALL_CFLAGS) $(ISA_FLAGS) $(PKG_CFLAGS) -c -o $@ $<

.SECONDARY: $(addsuffix .c,$(PROTO)) $(addsuffix .h,$(PROTO))
$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h: %.proto $(B)/flags
	@mkdir -p $(B)/gen
	$(SHOW) PROTOC $@
	$(Q)protoc-c --c_out=$(B)/gen $<
$(B)/gen/%.o: $(B)/gen/%.c
	$(SHOW) CC $@
	$(Q)$(CC) $(filter-out $(WARN) $(WERROR),$(ALL_CFLAGS)) $(PKG_CFLAGS) -c -o $@ $<
$(B)/tokenizer/sentencepiece.o: $(PROTO:=.h)
$(B)/tokenizer/sentencepiece.o tidy/tokenizer/sentencepiece.c: PKG_CFLAGS += -I$(B)/gen
$(B)/gen/%.o: PKG_CFLAGS += -I$(B)/gen

# `make` installs nothing: without the libraries it ends with the line that does.
ifeq ($(shell pkg-config --exists $(PKGS) && echo yes),)
$(B)/flags: packages
packages:
	@tools/setup.sh -n build
.PHONY: packages
endif

lint-format:
	clang-format --dry-run -Werror $(SOURCES)
TIDY := $(patsubst %,tidy/%,$(filter %.c,$(SOURCES)))
lint-tidy: $(PROTO:=.h) $(TIDY)
tidy/%_avx2.c:    ISA_FLAGS := $(AVX2)
tidy/%_avxvnni.c: ISA_FLAGS := $(AVX2) -mavxvnni
tidy/%_avx512.c:  ISA_FLAGS := $(AVX512)
tidy/%_vnni.c:    ISA_FLAGS := $(AVX512) -mavx512vnni
tidy/%_amx.c:     ISA_FLAGS := $(AVX512) -mavx512vnni -mamx-tile -mamx-int8
tidy/%: FORCE
	clang-tidy --quiet --warnings-as-errors='*' $* -- -std=c17 -D_GNU_SOURCE -I. -fopenmp $(WARN) \
	    $(ISA_FLAGS) $(PKG_CFLAGS)
lint-cppcheck:
	cppcheck --quiet --std=c11 --language=c --enable=warning,performance,portability --inline-suppr \
	    --error-exitcode=1 -I. -D_GNU_SOURCE --suppress=missingIncludeSystem $(filter %.c,$(SOURCES))

FORCE:
.PHONY: FORCE suite lint-format lint-tidy lint-cppcheck
-include $(shell find $(B) -name '*.d' 2>/dev/null)
