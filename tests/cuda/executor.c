#include "tests/cuda/executor.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif
#ifdef HAS_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifndef __x86_64__
#include <ucontext.h>
#endif

enum {
    WARP = 32,
    MAX_THREADS = 1024,
    STACK = 128 << 10,
    PAGE = 4096,
    MAX_ALLOCS = 4096,
    NAN_BYTE = 0xff, /* four of them are a NaN, two are one of half the size */
};

static const size_t ARENA = (size_t)1 << 36;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)fprintf(stderr, "executor: block (%u, %u, %u), thread %u: ", exec_block.x, exec_block.y,
                  exec_block.z, exec_thread.x);
    (void)vfprintf(stderr, fmt, ap);
    (void)fputc('\n', stderr);
    va_end(ap);
    abort();
}

/* ---- Fibers ------------------------------------------------------------------------------------- */

struct fiber {
#ifdef __x86_64__
    void *sp;
#else
    ucontext_t context;
#endif
    void *fake; /* the sanitizer's, of this stack */
    char *stack;
};

static struct fiber host, fibers[MAX_THREADS];
static struct fiber *running = &host;
#ifdef HAS_ASAN
static const void *host_bottom; /* where the host's stack lies: known when the first fiber begins */
static size_t host_size;
#endif
static char *stacks;

#ifdef __x86_64__
/* Saves the callee's registers on the old stack, its pointer to *from, and goes on from the new one. */
void exec_switch(void **from, void *to);
__asm__(".text\n"
        ".globl exec_switch\n"
        ".type exec_switch, @function\n"
        "exec_switch:\n"
        "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
        "  movq %rsp, (%rdi)\n"
        "  movq %rsi, %rsp\n"
        "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
        "  ret\n"
        ".size exec_switch, .-exec_switch\n");
#endif

static void switch_to(struct fiber *to, bool for_ever)
{
    struct fiber *from = running;
    running = to;
#ifdef HAS_ASAN
    __sanitizer_start_switch_fiber(for_ever ? NULL : &from->fake, to == &host ? host_bottom : to->stack,
                                   to == &host ? host_size : STACK);
#else
    (void)for_ever;
#endif
#ifdef __x86_64__
    exec_switch(&from->sp, to->sp);
#else
    (void)swapcontext(&from->context, &to->context);
#endif
#ifdef HAS_ASAN
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(from->fake, &bottom, &size);
#endif
}

/* ---- One block ----------------------------------------------------------------------------------- */

struct exec_index exec_thread, exec_block, exec_block_dim, exec_grid_dim;
void *exec_shared;

enum state { READY, AT_BARRIER, AT_WARP, DONE };

/* What lanes with one mask do together; kept at the mask's lowest lane. */
struct meeting {
    uint32_t mask, arrived;
    int turn; /* which of two sets of slots is being filled */
};

static struct {
    int n; /* threads */
    enum state state[MAX_THREADS];
    bool begun[MAX_THREADS];
    int n_waiting, n_done;
    struct meeting meeting[MAX_THREADS];
    uint8_t slot[MAX_THREADS / WARP][2][WARP][EXEC_SLOT];
    void (*body)(void *);
    void *closure;
} block;

static enum exec_order order;
static uint32_t shuffle_state = 1;

void exec_set_order(enum exec_order o)
{
    order = o;
}

/* ---- Copies under way ----------------------------------------------------------------------------- */

enum { COPY = 16, MAX_COPIES = 128 };

static struct copies {
    struct {
        void *to;
        const void *from;
        int group;
    } copy[MAX_COPIES];
    int n, n_groups; /* begun, and ended as groups, since nothing was under way */
} copies[MAX_THREADS];

void exec_copy_async(void *to, const void *from)
{
    struct copies *c = &copies[exec_thread.x];
    if (c->n == MAX_COPIES || (uintptr_t)to % COPY || (uintptr_t)from % COPY)
        die("a copy from %p to %p, %d under way", from, to, c->n);
    c->copy[c->n].to = to;
    c->copy[c->n].from = from;
    c->copy[c->n++].group = c->n_groups;
}

void exec_copy_group(void)
{
    copies[exec_thread.x].n_groups++;
}

void exec_copy_wait(int n_under_way)
{
    struct copies *c = &copies[exec_thread.x];
    int left = 0;
    for (int i = 0; i < c->n; i++)
        if (c->copy[i].group >= c->n_groups - n_under_way)
            c->copy[left++] = c->copy[i];
        else if (c->copy[i].from)
            memcpy(c->copy[i].to, c->copy[i].from, COPY);
        else
            memset(c->copy[i].to, 0, COPY);
    c->n = left;
}

static void entry(void)
{
#ifdef HAS_ASAN
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(NULL, &bottom, &size);
    if (!host_bottom) {
        host_bottom = bottom;
        host_size = size;
    }
#endif
    block.body(block.closure);
    if (!block.begun[exec_thread.x])
        die("never waited for the kernel before");
    if (copies[exec_thread.x].n)
        die("ends with copies under way");
    block.state[exec_thread.x] = DONE;
    block.n_done++;
    switch_to(&host, true);
    abort();
}

static void prepare(struct fiber *f)
{
#ifdef HAS_ASAN
    /* entry never returned from the last thread that was here: its frame's borders are still forbidden */
    __asan_unpoison_memory_region(f->stack + STACK - PAGE, PAGE);
#endif
    f->fake = NULL;
#ifdef __x86_64__
    /* As if exec_switch had been called there: six registers, the address to return to; at the function's
     * entry the stack pointer is 8 below a multiple of 16. */
    uintptr_t top = (uintptr_t)(f->stack + STACK) / 16 * 16;
    void **sp = (void **)(top - 16);
    void (*start)(void) = entry;
    memcpy(sp, &start, sizeof start);
    sp -= 6;
    memset(sp, 0, 6 * sizeof *sp);
    f->sp = sp;
#else
    (void)getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK;
    makecontext(&f->context, entry, 0);
#endif
}

static void wait(enum state s)
{
    const unsigned me = exec_thread.x;
    block.state[me] = s;
    switch_to(&host, false);
    exec_thread.x = me;
}

void exec_begin_kernel(void)
{
    block.begun[exec_thread.x] = true;
}

void exec_barrier(void)
{
    if (++block.n_waiting < block.n) {
        wait(AT_BARRIER);
        return;
    }
    block.n_waiting = 0;
    for (int i = 0; i < block.n; i++)
        if (block.state[i] == AT_BARRIER)
            block.state[i] = READY;
        else if (i != (int)exec_thread.x)
            die("thread %d is not at the barrier", i);
}

/* Waits for the mask's lanes; which set of slots was filled. */
static int meet(uint32_t mask)
{
    const int me = (int)exec_thread.x, lane = me % WARP, first = me - lane;
    if (!(mask >> lane & 1))
        die("not in its own mask %08" PRIx32, mask);
    struct meeting *m = &block.meeting[first + __builtin_ctz(mask)];
    if (m->arrived && m->mask != mask)
        die("mask %08" PRIx32 " meets mask %08" PRIx32, mask, m->mask);
    const int turn = m->turn;
    m->mask = mask;
    m->arrived |= 1u << lane;
    if (m->arrived != mask) {
        wait(AT_WARP);
        return turn;
    }
    m->arrived = 0;
    m->turn ^= 1;
    for (int i = 0; i < WARP; i++)
        if ((mask >> i & 1) && i != lane) {
            if (first + i >= block.n || block.state[first + i] != AT_WARP)
                die("lane %d is not there", i);
            block.state[first + i] = READY;
        }
    return turn;
}

void exec_warp_barrier(uint32_t mask)
{
    (void)meet(mask);
}

const uint8_t *exec_exchange(uint32_t mask, const void *mine, size_t n)
{
    const int me = (int)exec_thread.x, warp = me / WARP;
    const struct meeting *m = &block.meeting[me - me % WARP + __builtin_ctz(mask)];
    if (n > EXEC_SLOT)
        die("too much to exchange");
    memcpy(block.slot[warp][m->turn][me % WARP], mine, n);
    return block.slot[warp][meet(mask)][0];
}

static void run_block(int *turn)
{
    block.n_waiting = block.n_done = 0;
    memset(block.meeting, 0, sizeof block.meeting);
    for (int i = 0; i < block.n; i++) {
        block.state[i] = READY;
        block.begun[i] = false;
        copies[i].n = copies[i].n_groups = 0;
        prepare(&fibers[i]);
    }
    for (bool moved = true; moved && block.n_done < block.n;) {
        moved = false;
        for (int k = block.n - 1; k > 0 && order == EXEC_SHUFFLED; k--) {
            shuffle_state = shuffle_state * 1664525u + 1013904223u;
            int j = (int)(shuffle_state >> 8) % (k + 1), swap = turn[k];
            turn[k] = turn[j];
            turn[j] = swap;
        }
        for (int k = 0; k < block.n; k++) {
            int i = order == EXEC_BACKWARDS ? block.n - 1 - k : turn[k];
            if (block.state[i] != READY)
                continue;
            moved = true;
            exec_thread = (struct exec_index){(unsigned)i, 0, 0};
            switch_to(&fibers[i], false);
        }
    }
    for (int i = 0; i < block.n; i++)
        if (block.state[i] != DONE) {
            exec_thread.x = (unsigned)i;
            die("waits for ever at a barrier of the %s", block.state[i] == AT_WARP ? "warp" : "block");
        }
}

/* ---- Launches and graphs ------------------------------------------------------------------------- */

struct node {
    struct exec_index grid, block;
    size_t shared_bytes, bytes;
    void (*body)(void *); /* NULL: a copy */
    void *closure;
    void *dst;
    const void *src;
    struct node *next;
};

struct exec_graph {
    struct node *first, **last;
};

struct exec_stream {
    struct exec_graph *capture;
};

static int64_t n_launches, n_graph_launches;
static struct exec_graph *capturing; /* launches name no stream here: only one is captured at a time */

int64_t exec_launches(void)
{
    return n_launches;
}

int64_t exec_graph_launches(void)
{
    return n_graph_launches;
}

static char *arena;
static size_t arena_used;

static void open_arena(void)
{
    if (arena)
        return;
    arena = mmap(NULL, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    stacks = mmap(NULL, (size_t)MAX_THREADS * STACK, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED || stacks == MAP_FAILED)
        die("out of memory");
    for (int i = 0; i < MAX_THREADS; i++)
        fibers[i].stack = stacks + (size_t)i * STACK;
}

static struct alloc {
    char *p;
    size_t bytes;
    bool pinned;
} allocs[MAX_ALLOCS];
static int n_allocs;
static size_t held, memory = (size_t)1 << 34;
static bool strict;

/* The whole pages that an allocation lies in. */
static char *pages_of(const struct alloc *a, size_t *bytes)
{
    char *begin = a->p - (size_t)(a->p - arena) % PAGE;
    *bytes = ((size_t)(a->p - begin) + a->bytes + PAGE - 1) / PAGE * PAGE;
    return begin;
}

static void protect(const struct alloc *a, int protection)
{
    size_t bytes;
    if (a->pinned)
        return;
    char *begin = pages_of(a, &bytes);
    (void)mprotect(begin, bytes, protection);
}

/* Device memory can be touched from here on, or (strict) no more. */
static void open_memory(void)
{
    for (int i = 0; i < n_allocs && strict; i++)
        protect(&allocs[i], PROT_READ | PROT_WRITE);
}

static void close_memory(void)
{
    for (int i = 0; i < n_allocs && strict; i++)
        protect(&allocs[i], PROT_NONE);
}

void exec_set_strict(bool on)
{
    if (strict && !on)
        open_memory();
    strict = on;
    close_memory();
}

static bool is_device(const void *p)
{
    return arena && (const char *)p >= arena && (const char *)p < arena + ARENA;
}

/* Where Linux puts programs, heaps, libraries and stacks; two ints side by side are rarely as much. */
static const uintptr_t HOST_FROM = (uintptr_t)0x50 << 40;

/* An argument that looks like an address of the process must be one of the device. */
static void check_arguments(const void *code, const void *closure, size_t bytes)
{
    for (size_t i = 0; i + sizeof(uintptr_t) <= bytes; i += sizeof(uintptr_t)) {
        uintptr_t word;
        memcpy(&word, (const char *)closure + i, sizeof word);
        if (word >= HOST_FROM && word < (uintptr_t)1 << 47 && word != (uintptr_t)code &&
            !is_device((const void *)word))
            die("argument bytes %zu hold the host's address %" PRIxPTR, i, word);
    }
}

static void run(const struct node *n)
{
    static char *shared;
    static size_t shared_size;
    int turn[MAX_THREADS];
    const size_t threads = (size_t)n->block.x * n->block.y * n->block.z;
    n_launches++;
    open_arena();
    if (threads < 1 || threads > MAX_THREADS || n->block.y != 1 || n->block.z != 1 || n->grid.x < 1 ||
        n->grid.y < 1 || n->grid.z < 1 || n->grid.y > 65535 || n->grid.z > 65535)
        die("a launch of %u × %u × %u blocks of %u threads", n->grid.x, n->grid.y, n->grid.z, n->block.x);
    if (n->shared_bytes > 227 << 10)
        die("%zu bytes of shared memory", n->shared_bytes);
    if (!shared || n->shared_bytes != shared_size) { /* a page that nobody may touch follows it, too */
        const size_t whole = (n->shared_bytes + PAGE - 1) / PAGE * PAGE;
        if (shared)
            (void)munmap(shared, (shared_size + PAGE - 1) / PAGE * PAGE + PAGE);
        shared = mmap(NULL, whole + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (shared == MAP_FAILED || mprotect(shared + whole, PAGE, PROT_NONE))
            die("out of memory");
        shared_size = n->shared_bytes;
    }
    for (int i = 0; i < MAX_THREADS; i++)
        turn[i] = i;
    exec_shared = shared + (PAGE - shared_size % PAGE) % PAGE / 16 * 16;
    block.n = (int)threads;
    block.body = n->body;
    block.closure = n->closure;
    exec_grid_dim = n->grid;
    exec_block_dim = n->block;
    open_memory();
    const uint64_t n_blocks = (uint64_t)n->grid.x * n->grid.y * n->grid.z;
    for (uint64_t i = 0; i < n_blocks; i++) {
        const uint64_t at = order == EXEC_BACKWARDS ? n_blocks - 1 - i : i;
        exec_block = (struct exec_index){(unsigned)(at % n->grid.x), (unsigned)(at / n->grid.x % n->grid.y),
                                         (unsigned)(at / n->grid.x / n->grid.y)};
        if (n->shared_bytes)
            memset(exec_shared, NAN_BYTE, n->shared_bytes);
        run_block(turn);
    }
    close_memory();
}

static void append(struct exec_graph *g, const struct node *n, const void *closure, size_t bytes)
{
    struct node *copy = malloc(sizeof *copy);
    void *own = bytes ? malloc(bytes) : NULL;
    if (!copy || (bytes && !own))
        die("out of memory");
    *copy = *n;
    copy->closure = own;
    copy->next = NULL;
    if (bytes)
        memcpy(own, closure, bytes);
    *g->last = copy;
    g->last = &copy->next;
}

void exec_launch(struct exec_index grid, struct exec_index size, size_t shared_bytes, void (*body)(void *),
                 const void *code, const void *closure, size_t bytes)
{
    struct node n = {.grid = grid, .block = size, .shared_bytes = shared_bytes, .body = body};
    check_arguments(code, closure, bytes);
    if (capturing) {
        append(capturing, &n, closure, bytes);
        return;
    }
    memcpy(&n.closure, &closure, sizeof closure); /* kernels take their arguments by value */
    run(&n);
}

/* ---- The runtime's functions --------------------------------------------------------------------- */

static int fail_after = -1;
static bool fail_sticky, has_failed;

void exec_fail_after(int n, bool sticky)
{
    fail_after = n;
    fail_sticky = sticky;
    has_failed = false;
}

bool exec_failed(void)
{
    return has_failed;
}

/* Whether this call is the one that was asked to fail. */
static bool fails(void)
{
    if (fail_after < 0)
        return false;
    if (fail_after > 0) {
        fail_after--;
        return false;
    }
    if (!fail_sticky)
        fail_after = -1;
    has_failed = true;
    return true;
}

static cudaError_t outcome(void)
{
    return fails() ? cudaErrorIllegalAddress : cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaSuccess                   ? "no error"
           : e == cudaErrorMemoryAllocation   ? "out of memory"
           : e == cudaErrorInsufficientDriver ? "driver version is insufficient for CUDA runtime version"
           : e == cudaErrorNoDevice           ? "no CUDA-capable device is detected"
           : e == cudaErrorIllegalAddress     ? "an illegal memory access was encountered"
                                              : "invalid argument";
}

cudaError_t cudaGetLastError(void)
{
    return outcome();
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = 1;
    return outcome();
}

cudaError_t cudaSetDevice(int device)
{
    return device == 0 ? outcome() : cudaErrorInvalidDevice;
}

cudaError_t cudaDeviceGetAttribute(int *value, int attribute, int device)
{
    (void)device;
    *value = attribute == cudaDevAttrMultiProcessorCount ? 3 /* so that loops over blocks are taken */
             : attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin ? 227 << 10
             : attribute == cudaDevAttrComputeCapabilityMajor       ? 9
                                                                    : 0;
    return outcome();
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    (void)device;
    *p = (struct cudaDeviceProp){"host executor"};
    return outcome();
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, ...)
{
    a->ptxVersion = 90;
    return outcome();
}

void exec_set_memory(size_t bytes)
{
    memory = bytes;
}

size_t exec_bytes_held(void)
{
    return held;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    *total = memory;
    *free_bytes = memory - (held < memory ? held : memory);
    return outcome();
}

static cudaError_t remember(void **p, char *at, size_t bytes, bool pinned)
{
    if (n_allocs == MAX_ALLOCS)
        die("too many allocations");
    allocs[n_allocs++] = (struct alloc){at, bytes, pinned};
    held += bytes;
    memset(at, NAN_BYTE, bytes);
    *p = at;
    return cudaSuccess;
}

static struct alloc *find(const void *p, bool pinned)
{
    for (int i = 0; i < n_allocs; i++)
        if (allocs[i].p == p && allocs[i].pinned == pinned)
            return &allocs[i];
    die("%p was not allocated", p);
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    open_arena();
    if (fails() || bytes > memory - (held < memory ? held : memory))
        return cudaErrorMemoryAllocation;
    const size_t whole = (bytes + PAGE - 1) / PAGE * PAGE;
    char *at = arena + arena_used;
    if (whole + PAGE > ARENA - arena_used || mprotect(at, whole, PROT_READ | PROT_WRITE))
        return cudaErrorMemoryAllocation;
    arena_used += whole + PAGE;
    /* It ends where the forbidden page begins, as far as CUDA's alignment allows. */
    memset(at, NAN_BYTE, whole);
    at += (whole - bytes) / 256 * 256;
    cudaError_t e = remember(p, at, bytes, false);
    close_memory();
    return e;
}

cudaError_t cudaFree(void *p)
{
    if (!p)
        return outcome();
    struct alloc *a = find(p, false);
    held -= a->bytes;
    size_t bytes;
    char *begin = pages_of(a, &bytes);
    (void)mmap(begin, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    *a = allocs[--n_allocs];
    return outcome();
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    char *at = fails() ? NULL : malloc(bytes);
    return at ? remember(p, at, bytes, true) : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *p)
{
    if (!p)
        return outcome();
    struct alloc *a = find(p, true);
    held -= a->bytes;
    free(a->p);
    *a = allocs[--n_allocs];
    return outcome();
}

static cudaError_t check_copy(const void *dst, const void *src, enum cudaMemcpyKind kind)
{
    if (is_device(dst) != (kind != cudaMemcpyDeviceToHost) ||
        is_device(src) != (kind != cudaMemcpyHostToDevice))
        die("a copy from %p to %p of kind %d", src, dst, (int)kind);
    return outcome();
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t s)
{
    cudaError_t e = check_copy(dst, src, kind);
    if (e != cudaSuccess)
        return e;
    if (s && s->capture) {
        const struct node n = {.dst = dst, .src = src, .bytes = bytes};
        append(s->capture, &n, NULL, 0);
        return e;
    }
    open_memory();
    memcpy(dst, src, bytes);
    close_memory();
    return e;
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t s)
{
    if (!is_device(dst) || (s && s->capture))
        die("a memset of %p", dst);
    open_memory();
    memset(dst, value, bytes);
    close_memory();
    return outcome();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    (void)flags;
    *s = fails() ? NULL : calloc(1, sizeof **s);
    return *s ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    free(s);
    return outcome();
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    if (s && s->capture)
        die("synchronised while it is captured");
    return outcome();
}

struct exec_event {
    int unused;
};

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags)
{
    (void)s, (void)e, (void)flags;
    return outcome();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags)
{
    (void)flags;
    *e = fails() ? NULL : calloc(1, sizeof **e);
    return *e ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    free(e);
    return outcome();
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    (void)e, (void)s;
    return outcome();
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    (void)e;
    return outcome();
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, int mode)
{
    (void)mode;
    if (fails())
        return cudaErrorIllegalAddress;
    struct exec_graph *g = calloc(1, sizeof *g);
    if (!g || capturing)
        die("a capture inside a capture");
    g->last = &g->first;
    capturing = s->capture = g;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    *g = s->capture;
    capturing = s->capture = NULL;
    return outcome();
}

static void free_graph(struct exec_graph *g)
{
    for (struct node *n = g->first, *next; n; n = next) {
        next = n->next;
        free(n->closure);
        free(n);
    }
    free(g);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long flags)
{
    (void)flags;
    *x = NULL;
    if (fails())
        return cudaErrorMemoryAllocation;
    struct exec_graph *copy = calloc(1, sizeof *copy);
    if (!copy)
        die("out of memory");
    copy->last = &copy->first;
    /* what the closure holds is known to its launch only: the nodes move */
    *copy = *g;
    if (!copy->first)
        copy->last = &copy->first;
    g->first = NULL;
    g->last = &g->first;
    *x = copy;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s)
{
    cudaError_t e = outcome();
    (void)s;
    n_graph_launches++;
    for (const struct node *n = x->first; n && e == cudaSuccess; n = n->next) {
        if (n->body) {
            run(n);
            continue;
        }
        open_memory();
        memcpy(n->dst, n->src, n->bytes);
        close_memory();
    }
    return e;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x)
{
    if (x)
        free_graph(x);
    return outcome();
}

cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    if (g)
        free_graph(g);
    return outcome();
}
