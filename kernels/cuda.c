/* Opens the CUDA plug-in: beside the program, or where the system looks for libraries. */
#include "kernels/cuda.h"

#include "quant/err.h"
#include "quant/grids.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char library[] = "libquoll-cuda.so";

typedef int version_fn(void);
typedef const struct ops *open_fn(const struct cuda_host *host, int device, bool exact, char *err,
                                  size_t errlen);
typedef int memory_fn(int device, size_t *free_bytes, size_t *total_bytes, char *err, size_t errlen);

/* What the plug-in has. */
struct plugin {
    open_fn *open;
    memory_fn *memory;
};

static const struct cuda_host cuda_host = {
    .types = qtypes,
    .pack_chunk = cuda_pack_chunk,
    .iq1 = iq1_grid,
    .iq2_xxs = iq2_xxs_grid,
    .iq2_xs = iq2_xs_grid,
    .iq2_s = iq2_s_grid,
    .iq3_xxs = iq3_xxs_grid,
    .iq3_s = iq3_s_grid,
};

const struct cuda_host *cuda_host_tables(void)
{
    return &cuda_host;
}

/* The plug-in's own are the same: a slice's activations in 8 bits, and nothing for attention, whose partial
 * results are in memory that grows with the sequences. */
static size_t scratch_bytes(int n_tokens, int64_t cols)
{
    return (size_t)n_tokens * (size_t)((cols + ACT_LEN - 1) / ACT_LEN) * sizeof(struct act_block);
}

static size_t attention_scratch_bytes(int n_tokens, int n_heads, int head_dim, int64_t max_len, int n_threads)
{
    (void)n_tokens, (void)n_heads, (void)head_dim, (void)max_len, (void)n_threads;
    return 0;
}

const struct ops *cuda_plan_ops(void)
{
    static const struct ops ops = {
        .name = "cuda", .scratch_bytes = scratch_bytes, .attention_scratch_bytes = attention_scratch_bytes};
    return &ops;
}

/* The library's path beside the program; false: not there. */
static bool beside(char *path, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", path, size - sizeof library - 1);
    if (n <= 0)
        return false;
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    if (!slash)
        return false;
    memcpy(slash + 1, library, sizeof library);
    return access(path, R_OK) == 0;
}

/* NULL: err says what is wrong. Stays open for the rest of the process's life. */
static const struct plugin *plugin(char *err, size_t errlen)
{
    static struct plugin opened;
    char path[PATH_MAX];
    if (opened.open)
        return &opened;
    void *lib = dlopen(beside(path, sizeof path) ? path : library, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        const char *why = dlerror();
        if (beside(path, sizeof path))
            (void)err_set(err, errlen, "%s: %s", path, why ? why : "cannot be opened");
        else
            (void)err_set(
                err, errlen,
                "CUDA: this build has no %s beside the program (make CUDA=1 builds it where nvcc is)",
                library);
        return NULL;
    }
    version_fn *version = NULL;
    struct plugin found = {NULL, NULL};
    /* POSIX's way of making a function of what dlsym gives. */
    *(void **)&version = dlsym(lib, "quoll_cuda_version");
    *(void **)&found.open = dlsym(lib, "quoll_cuda_open");
    *(void **)&found.memory = dlsym(lib, "quoll_cuda_memory");
    if (!version || !found.open || !found.memory || version() != CUDA_PLUGIN_VERSION) {
        (void)dlclose(lib);
        (void)err_set(err, errlen, "%s: it belongs to another version of quoll", library);
        return NULL;
    }
    opened = found;
    return &opened;
}

const struct ops *ops_cuda(int device, bool exact, char *err, size_t errlen)
{
    const struct plugin *p = plugin(err, errlen);
    return p ? p->open(&cuda_host, device, exact, err, errlen) : NULL;
}

int cuda_memory(int device, size_t *free_bytes, size_t *total_bytes, char *err, size_t errlen)
{
    const struct plugin *p = plugin(err, errlen);
    return p ? p->memory(device, free_bytes, total_bytes, err, errlen) : -1;
}

int cuda_probe(char *err, size_t errlen)
{
    const struct plugin *p = plugin(err, errlen);
    if (!p)
        return -1;
    (void)p->open(&cuda_host, -1, false, err, errlen);
    return err[0] ? -1 : 0;
}
