#include "tools/lab.h"
#include "tools/tools.h"

#include "quant/err.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { KEPT_ERROR = 800 }; /* bytes of stderr's end that are looked at */

struct output {
    char *text;
    size_t len, cap;
};

/* −1: out of memory. */
static int append(struct output *o, const char *bytes, size_t n)
{
    if (o->len + n + 1 > o->cap) {
        size_t cap = 2 * (o->len + n) + 1024;
        char *grown = realloc(o->text, cap);
        if (!grown)
            return -1;
        o->text = grown;
        o->cap = cap;
    }
    memcpy(o->text + o->len, bytes, n);
    o->len += n;
    o->text[o->len] = 0;
    return 0;
}

/* Reads to the end; a request to stop is passed on. */
static int drain(int fd, struct output *o, pid_t pid)
{
    char buffer[4096];
    ssize_t n;
    while ((n = read(fd, buffer, sizeof buffer)) > 0 || (n < 0 && errno == EINTR)) {
        if (n < 0 && tool_interrupts() > 0)
            (void)kill(pid, SIGTERM);
        if (n > 0 && append(o, buffer, (size_t)n))
            return -1;
    }
    return 0;
}

/* The last line of a file that begins with "quoll: ", without that; else the last line. */
static void last_message(int fd, char *err, size_t errlen)
{
    char text[KEPT_ERROR + 1];
    off_t size = lseek(fd, 0, SEEK_END), from = size > KEPT_ERROR ? size - KEPT_ERROR : 0;
    ssize_t n = pread(fd, text, KEPT_ERROR, from);
    text[n > 0 ? n : 0] = 0;
    while (n > 0 && text[n - 1] == '\n')
        text[--n] = 0;
    char *line = strrchr(text, '\n');
    line = line ? line + 1 : text;
    for (char *at = text; (at = strstr(at, "quoll: ")) != NULL; at++)
        if (at == text || at[-1] == '\n')
            line = at + strlen("quoll: ");
    line[strcspn(line, "\n")] = 0;
    (void)err_set(err, errlen, "%s", *line ? line : "it said nothing");
}

/* This program with its stdout in a pipe and its stderr in a file. */
static int start(pid_t *pid, const char *const *args, int out, int messages)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return errno;
    self[n] = 0;
    size_t n_args = 0;
    while (args[n_args])
        n_args++;
    char **argv = calloc(n_args + 2, sizeof *argv);
    posix_spawn_file_actions_t actions;
    if (!argv || posix_spawn_file_actions_init(&actions) != 0) {
        free(argv);
        return ENOMEM;
    }
    argv[0] = self;
    memcpy(argv + 1, args, n_args * sizeof *argv);
    int rc = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(&actions, messages, STDERR_FILENO);
    if (rc == 0)
        rc = posix_spawn(pid, self, &actions, NULL, argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    free(argv);
    return rc;
}

int lab_run(const char *const *args, char **out, char *err, size_t errlen)
{
    struct output o = {NULL, 0, 0};
    int ends[2], status = 0;
    pid_t pid;
    if (out)
        *out = NULL;
    FILE *messages = tmpfile();
    if (!messages || pipe2(ends, O_CLOEXEC) != 0) {
        int rc = err_set(err, errlen, "%s: %s", args[0], strerror(errno));
        if (messages)
            (void)fclose(messages);
        return rc;
    }
    int failed = start(&pid, args, ends[1], fileno(messages));
    (void)close(ends[1]);
    int rc = failed ? err_set(err, errlen, "%s: %s", args[0], strerror(failed)) : drain(ends[0], &o, pid);
    (void)close(ends[0]);
    if (!failed) {
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        if (rc == 0 && WIFEXITED(status))
            rc = WEXITSTATUS(status);
        else if (rc == 0)
            rc = -1;
        if (rc)
            last_message(fileno(messages), err, errlen);
        if (WIFSIGNALED(status))
            rc = err_set(err, errlen, "%s: ended by signal %d", args[0], WTERMSIG(status));
    }
    (void)fclose(messages);
    if (rc == 0 && out) {
        *out = o.text ? o.text : strdup("");
        o.text = NULL;
    }
    free(o.text);
    return rc;
}

json_t *lab_run_json(const char *const *args, char *err, size_t errlen)
{
    char *text;
    json_error_t why;
    if (lab_run(args, &text, err, errlen) != 0)
        return NULL;
    json_t *j = text ? json_loads(text, 0, &why) : NULL;
    if (!j)
        (void)err_set(err, errlen, "%s: its output is no JSON: %s", args[0], text ? why.text : "none");
    free(text);
    return j;
}

char *lab_command_text(const char *const *args)
{
    struct output o = {NULL, 0, 0};
    int rc = append(&o, "quoll", 5);
    for (; rc == 0 && *args; args++) {
        const char *quote = strpbrk(*args, " \t\n'\"\\$&|;<>()*?[]#~`!{}") ? "'" : "";
        rc = append(&o, " ", 1) || append(&o, quote, strlen(quote)) || append(&o, *args, strlen(*args)) ||
                     append(&o, quote, strlen(quote))
                 ? -1
                 : 0;
    }
    if (rc) {
        free(o.text);
        return NULL;
    }
    return o.text;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    (void)remove(path);
    return 0;
}

void lab_remove(const char *path)
{
    (void)nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}
