/* What the machine offers this process: cores, memory, time (Linux: /proc, /sys, cgroups). */
#include "tools/tools.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The first line of a small file, without its newline; false: not there. */
static bool read_line(const char *path, char *line, size_t size)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    bool ok = fgets(line, (int)size, f) != NULL;
    fclose(f);
    if (ok)
        line[strcspn(line, "\n")] = '\0';
    return ok;
}

/* "3" of "3,67" or "3-4": the first CPU of a list, −1: none. */
static long first_cpu(const char *list)
{
    char *end;
    long cpu = strtol(list, &end, 10);
    return end == list || cpu < 0 ? -1 : cpu;
}

/* CPUs of the affinity mask, each core once: a CPU counts when no earlier CPU of the mask is its
 * sibling. Masks larger than cpu_set_t (over 1024 CPUs) fall back to the system's count. */
static int cores_by_affinity(void)
{
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof mask, &mask) != 0) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);
        return n > 0 && n < 1 << 20 ? (int)n : 1;
    }
    cpu_set_t seen; /* first siblings of the cores counted so far */
    CPU_ZERO(&seen);
    int n = 0;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &mask))
            continue;
        char path[96], list[256];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/topology/thread_siblings_list", cpu);
        long first = read_line(path, list, sizeof list) ? first_cpu(list) : -1;
        size_t core = first < 0 || first >= CPU_SETSIZE ? cpu : (size_t)first;
        if (!CPU_ISSET(core, &seen)) {
            CPU_SET(core, &seen);
            n++;
        }
    }
    return n;
}

/* CPUs' worth of time that a quota allows, rounded up; 0: no limit. */
static int quota_cpus(double quota, double period)
{
    if (quota <= 0 || period <= 0 || quota / period >= 1 << 20)
        return 0;
    int n = (int)(quota / period);
    return n < quota / period ? n + 1 : n;
}

/* cgroup v2's cpu.max ("max 100000" or "200000 100000") and v1's pair of files, in one folder. */
static uint64_t quota_in(const char *dir)
{
    char path[4096], line[128];
    double quota, period;
    snprintf(path, sizeof path, "%.4000s/cpu.max", dir);
    if (read_line(path, line, sizeof line))
        return sscanf(line, "%lf %lf", &quota, &period) == 2 ? (uint64_t)quota_cpus(quota, period) : 0;
    snprintf(path, sizeof path, "%.4000s/cpu.cfs_quota_us", dir);
    if (!read_line(path, line, sizeof line) || sscanf(line, "%lf", &quota) != 1)
        return 0;
    snprintf(path, sizeof path, "%.4000s/cpu.cfs_period_us", dir);
    if (!read_line(path, line, sizeof line) || sscanf(line, "%lf", &period) != 1)
        return 0;
    return (uint64_t)quota_cpus(quota, period);
}

/* Bytes that cgroup v2's memory.max ("max": no limit) or v1's file allow. */
static uint64_t memory_in(const char *dir)
{
    static const char *const names[] = {"memory.max", "memory.limit_in_bytes"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[4096], line[128];
        unsigned long long bytes;
        snprintf(path, sizeof path, "%.4000s/%s", dir, names[i]);
        if (read_line(path, line, sizeof line) && sscanf(line, "%llu", &bytes) == 1)
            return bytes;
    }
    return 0;
}

/* The smallest limit (0: none) in the folders of our cgroup and those above it. */
static uint64_t least_in_cgroups(const char *controller, uint64_t (*limit_in)(const char *dir))
{
    uint64_t least = 0;
    FILE *f = fopen("/proc/self/cgroup", "r");
    char line[2048];
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        /* "0::/path" (v2) or "4:cpu,cpuacct:/path" (v1) */
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        bool v2 = strcmp(controllers, ":") == 0;
        if (!v2 && !strstr(controllers, controller))
            continue;
        for (;;) {
            char dir[4096];
            snprintf(dir, sizeof dir, "/sys/fs/cgroup/%s%s", v2 ? "" : controller, group);
            uint64_t n = limit_in(dir);
            if (n > 0 && (least == 0 || n < least))
                least = n;
            char *slash = strrchr(group, '/');
            if (!slash || !group[0])
                break;
            *slash = '\0'; /* the folder above, the root last */
        }
    }
    if (f)
        fclose(f);
    return least;
}

int machine_threads(void)
{
    int n = cores_by_affinity(), quota = (int)least_in_cgroups("cpu", quota_in);
    if (quota > 0 && quota < n)
        n = quota;
    return n > 0 ? n : 1;
}

const char *machine_cpu_name(void)
{
    static char name[128];
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[512];
    while (f && !name[0] && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        snprintf(name, sizeof name, "%.120s", colon + 1 + strspn(colon + 1, " \t"));
        name[strcspn(name, "\n")] = '\0';
    }
    if (f)
        fclose(f);
    return name[0] ? name : "unknown CPU";
}

uint64_t machine_peak_memory(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    unsigned long long kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %llu", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib * 1024;
}

uint64_t machine_free_memory(void)
{
    FILE *f = fopen("/proc/meminfo", "r");
    char line[256];
    unsigned long long kib, sum = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1 || sscanf(line, "SwapFree: %llu", &kib) == 1)
            sum += kib;
    if (f)
        fclose(f);
    uint64_t there = sum * 1024, limit = least_in_cgroups("memory", memory_in);
    return limit > 0 && limit < there ? limit : there;
}

double machine_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
