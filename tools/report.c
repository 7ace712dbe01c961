/* What reaches the user besides results: errors, notes, interrupts. */
#include "quant/err.h"
#include "tools/tools.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int note_level = NOTE_USUAL;
static FILE *note_file; /* NULL: stderr */
static volatile sig_atomic_t n_interrupts;

__attribute__((format(printf, 1, 0))) static void print_error(const char *fmt, va_list ap)
{
    /* One line, whatever bytes a file put into the message. */
    char line[2048];
    vsnprintf(line, sizeof line, fmt, ap);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = ' ';
    fflush(stdout);
    fprintf(stderr, "quoll: %s\n", line);
}

int tool_error(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_error(fmt, ap);
    va_end(ap);
    return EXIT_FAILED;
}

int usage_error(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_error(fmt, ap);
    va_end(ap);
    return EXIT_USAGE;
}

int tool_log_open(int level, const char *log_file, char *err, size_t errlen)
{
    note_level = level;
    if (!log_file || !log_file[0])
        return 0;
    note_file = fopen(log_file, "w");
    if (!note_file)
        return err_set(err, errlen, "%s: %s", log_file, strerror(errno));
    setvbuf(note_file, NULL, _IOLBF, 0);
    return 0;
}

void tool_note(int level, const char *fmt, ...)
{
    if (level > note_level)
        return;
    va_list ap;
    va_start(ap, fmt);
    vfprintf(note_file ? note_file : stderr, fmt, ap);
    va_end(ap);
}

static int stdout_errno; /* why writing failed, 0: it did not */

int tool_write(const char *text, size_t len)
{
    errno = 0;
    bool failed = fflush(stdout) != 0;
    while (!failed && len > 0) {
        ssize_t n = write(STDOUT_FILENO, text, len);
        if (n >= 0) {
            text += n;
            len -= (size_t)n;
        } else {
            failed = errno != EINTR; /* Ctrl-C, while a slow terminal keeps us waiting */
        }
    }
    if (failed)
        stdout_errno = errno ? errno : EIO;
    return failed ? -1 : 0;
}

/* printf told nobody why it failed. A pipe without a reader still says so; of a file only that much is
 * known, that writing failed. */
static int lost_errno(void)
{
    struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLERR) ? EPIPE : EIO;
}

int tool_finish(int code)
{
    errno = 0;
    if ((fflush(stdout) != 0 || ferror(stdout)) && !stdout_errno)
        stdout_errno = errno ? errno : lost_errno();
    if (note_file)
        fclose(note_file);
    note_file = NULL;
    if (!stdout_errno)
        return code;
    /* `quoll run … | head` is no fault: the reader has what it wanted. */
    if (stdout_errno != EPIPE)
        tool_error("standard output: %s", stdout_errno == EIO ? "cannot be written" : strerror(stdout_errno));
    return code == EXIT_OK ? EXIT_FAILED : code;
}

static void count_interrupt(int sig)
{
    n_interrupts = n_interrupts + (sig == SIGTERM ? 2 : 1);
}

void tool_catch_interrupts(void)
{
    /* No SA_RESTART: a read from the terminal returns when the user presses Ctrl-C. */
    struct sigaction act = {.sa_handler = count_interrupt};
    sigemptyset(&act.sa_mask);
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
}

int tool_interrupts(void)
{
    return n_interrupts;
}

bool tool_interrupted(void)
{
    return tool_interrupts() > 0;
}

void tool_clear_interrupts(void)
{
    n_interrupts = 0;
}

int read_file(const char *path, char **text, size_t *len, char *err, size_t errlen)
{
    *text = NULL;
    *len = 0;
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *f = is_stdin ? stdin : fopen(path, "rb");
    if (!f)
        return err_set(err, errlen, "%s: %s", path, strerror(errno));
    size_t cap = 0, n = 0;
    char *buf = NULL;
    for (;;) {
        if (cap - n < 2) {
            size_t grown = cap ? cap * 2 : 1 << 16;
            char *bigger = grown > cap ? realloc(buf, grown) : NULL;
            if (!bigger) {
                err_set(err, errlen, "%s: too large for memory", path);
                break;
            }
            buf = bigger;
            cap = grown;
        }
        errno = 0;
        size_t got = fread(buf + n, 1, cap - n - 1, f);
        n += got;
        if (got > 0)
            continue;
        if (ferror(f)) {
            err_set(err, errlen, "%s: %s", is_stdin ? "standard input" : path, strerror(errno));
            break;
        }
        buf[n] = '\0';
        if (!is_stdin)
            fclose(f);
        *text = buf;
        *len = n;
        return 0;
    }
    free(buf);
    if (!is_stdin)
        fclose(f);
    return -1;
}
