#include "tests/tools/cli.h"

#include "tests/test.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const char *program(void)
{
    const char *bin = getenv("QUOLL_BIN");
    return bin && bin[0] ? bin : "./quoll";
}

/* An unnamed file holding input; files, not pipes: neither side can block the other. */
static int file_with(const char *input)
{
    FILE *f = tmpfile();
    ck_assert_ptr_nonnull(f);
    if (input)
        ck_assert_uint_eq(fwrite(input, 1, strlen(input), f), strlen(input));
    ck_assert_int_eq(fflush(f), 0);
    int fd = dup(fileno(f));
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq((int)lseek(fd, 0, SEEK_SET), 0);
    (void)fclose(f);
    return fd;
}

static char *content(int fd, size_t *len)
{
    off_t size = lseek(fd, 0, SEEK_END);
    ck_assert_int_ge((int)size, 0);
    char *text = malloc((size_t)size + 1);
    ck_assert_ptr_nonnull(text);
    *len = 0;
    while (*len < (size_t)size) {
        ssize_t n = pread(fd, text + *len, (size_t)size - *len, (off_t)*len);
        ck_assert_int_gt((int)n, 0);
        *len += (size_t)n;
    }
    text[*len] = '\0';
    close(fd);
    return text;
}

static struct cli spawn(const char *path, const char *input, char *const argv[])
{
    int in = file_with(input), out = file_with(NULL), err = file_with(NULL), status = 0;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
    pid_t pid;
    int failed = posix_spawn(&pid, path, &actions, NULL, argv, environ);
    ck_assert_msg(failed == 0, "%s: %s (build it first: make)", path, strerror(failed));
    posix_spawn_file_actions_destroy(&actions);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    close(in);
    struct cli c = {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1};
    c.out = content(out, &c.out_len);
    c.err = content(err, &c.err_len);
    return c;
}

struct cli cli_run(const char *input, const char *const *args)
{
    const char *argv[CLI_MAX_ARGS + 2] = {program()};
    size_t n = 1;
    for (; args[n - 1]; n++) {
        ck_assert_uint_lt(n, CLI_MAX_ARGS);
        argv[n] = args[n - 1];
    }
    return spawn(argv[0], input, (char *const *)argv);
}

struct cli cli_shell(const char *script, const char *const *args)
{
    const char *argv[CLI_MAX_ARGS + 5] = {"sh", "-c", script, "sh"};
    size_t n = 4;
    for (size_t i = 0; args[i]; i++) {
        ck_assert_uint_lt(i, CLI_MAX_ARGS);
        argv[n++] = args[i];
    }
    ck_assert_int_eq(setenv("Q", program(), 1), 0);
    return spawn("/bin/sh", NULL, (char *const *)argv);
}

void cli_free(struct cli *c)
{
    free(c->out);
    free(c->err);
    c->out = c->err = NULL;
}

void cli_expect(struct cli c, int code, const char *text)
{
    ck_assert_msg(c.code == code, "exit code %d, not %d; stderr: %s", c.code, code, c.err);
    if (code == 1 || code == 2) {
        const char *line = strstr(c.err, "quoll: ");
        ck_assert_msg(line && strchr(line, '\n') == c.err + c.err_len - 1, "not one line: %s", c.err);
    }
    ck_assert_msg(strstr(code ? c.err : c.out, text) != NULL, "no '%s' in: %s%s", text, c.out, c.err);
    cli_free(&c);
}

json_t *cli_json(const char *const *args)
{
    struct cli c = cli_run(NULL, args);
    ck_assert_msg(c.code == 0, "%s", c.err);
    json_t *r = json_loads(c.out, 0, NULL);
    ck_assert_msg(json_is_object(r), "%s", c.out);
    cli_free(&c);
    return r;
}

double cli_number(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    ck_assert_msg(json_is_number(v), "no number '%s'", key);
    return json_number_value(v);
}

void cli_write_text(const char *path)
{
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    for (int i = 0; i < 60; i++)
        fprintf(f, "Line %d: the %s of a town saw %d birds.\n", i * 7, i % 3 ? "mayor" : "baker", i * i);
    fclose(f);
}

const char *cli_model(void)
{
    static char path[1024];
    const char *found = test_golden("gguf/llama-f16/model.gguf");
    if (!found) {
        test_skip("commands", "no golden model");
        return NULL;
    }
    (void)snprintf(path, sizeof path, "%s", found);
    return path;
}
