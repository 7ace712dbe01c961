/* Where the user's turns come from: a terminal with line editing and history (libedit), or stdin as it
 * is. Three quotes begin and end a block of several lines. */
#include "tools/chat.h"

#include "quant/err.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

enum { HISTORY_LINES = 1000, MAX_INPUT_BYTES = 16 << 20 };

struct input {
    bool terminal, colour;
    bool typed; /* a key was pressed on this line */
    const char *prompt;
    EditLine *el;
    History *history;
    int history_fd; /* −1: not kept */
    char *raw;      /* the line or block being read */
    size_t n_raw, cap;
    char *clean;         /* what was lent */
    char ahead[1 << 12]; /* of stdin: read and not yet used, when it is no terminal */
    size_t ahead_at, n_ahead;
};

static volatile sig_atomic_t resized, continued;

/* Waits until stdin has something or a signal came. One that comes just before poll does not end it,
 * hence the time limit. */
static void wait_for_input(void)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    enum { HALF_A_SECOND = 500 };
    while (tool_interrupts() == 0 && !resized && !continued && poll(&p, 1, HALF_A_SECOND) == 0)
        continue;
}

/* ---- History, in $XDG_STATE_HOME/quoll or ~/.local/state/quoll ---------------------------------- */

/* Makes the folders of path; those that exist are fine. */
static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
}

static bool history_path(char *path, size_t size)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n = 0;
    if (state && state[0] == '/')
        n = snprintf(path, size, "%s/quoll/history", state);
    else if (home && home[0] == '/')
        n = snprintf(path, size, "%s/.local/state/quoll/history", home);
    return n > 0 && (size_t)n < size;
}

/* Without a history file the lines of this chat are remembered, and that is all. */
static void history_open(struct input *in)
{
    HistEvent e;
    char path[4096];
    if (!(in->history = history_init()))
        return;
    history(in->history, &e, H_SETSIZE, HISTORY_LINES);
    history(in->history, &e, H_SETUNIQUE, 1);
    el_set(in->el, EL_HIST, history, in->history);
    if (!history_path(path, sizeof path))
        return;
    make_folders(path);
    int loaded = history(in->history, &e, H_LOAD, path);
    if (loaded > 2 * HISTORY_LINES) /* the file holds more than is ever looked at */
        history(in->history, &e, H_SAVE, path);
    in->history_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

/* Each line goes to the file at once: two chats do not overwrite each other's. libedit writes whole
 * histories only, so it is given one of this line alone. */
static void history_append(int to, const char *line)
{
    HistEvent e;
    History *one = history_init();
    int fd = dup(to);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "a");
    if (one && f) {
        fseek(f, 0, SEEK_END); /* its header is written where the position is 0 */
        history(one, &e, H_SETSIZE, 1);
        history(one, &e, H_ENTER, line);
        history(one, &e, H_SAVE_FP, f);
    }
    if (f)
        fclose(f);
    else if (fd >= 0)
        close(fd);
    if (one)
        history_end(one);
}

static void history_add(struct input *in, const char *line)
{
    HistEvent e;
    if (!line[strspn(line, " \t\n")])
        return;
    if (in->history)
        history(in->history, &e, H_ENTER, line);
    if (in->history_fd >= 0)
        history_append(in->history_fd, line);
}

/* ---- Terminal ----------------------------------------------------------------------------------- */

static void note_signal(int sig)
{
    if (sig == SIGWINCH)
        resized = 1;
    else
        continued = 1;
}

static char *show_prompt(EditLine *el)
{
    static char text[32];
    struct input *in = NULL;
    el_get(el, EL_CLIENTDATA, &in);
    /* \1 marks what takes no room on the screen */
    snprintf(text, sizeof text, "%s%s%s", in->colour ? "\1\033[1m\1" : "", in->prompt,
             in->colour ? "\1\033[0m\1" : "");
    return text;
}

/* One character of the keyboard. libedit's own reader goes on after an interrupted read: here Ctrl-C
 * ends the line. */
static int read_key(EditLine *el, wchar_t *key)
{
    mbstate_t state;
    memset(&state, 0, sizeof state);
    for (;;) {
        char c;
        wait_for_input();
        if (tool_interrupts() > 0)
            return -1;
        if (resized)
            el_resize(el);
        if (continued) { /* after Ctrl-Z the shell's settings are on */
            el_set(el, EL_PREP_TERM, 1);
            el_set(el, EL_REFRESH);
        }
        resized = continued = 0;
        ssize_t n = read(STDIN_FILENO, &c, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return (int)n;
        size_t used = mbrtowc(key, &c, 1, &state);
        if (used == (size_t)-2) /* more bytes of this character to come */
            continue;
        if (used == (size_t)-1) { /* no character: forget the byte */
            memset(&state, 0, sizeof state);
            continue;
        }
        if (used == 0)
            *key = L'\0';
        struct input *in = NULL;
        el_get(el, EL_CLIENTDATA, &in);
        in->typed = true;
        return 1;
    }
}

static int terminal_open(struct input *in)
{
    /* libedit counts columns by the locale; where that is not UTF-8, C.UTF-8 comes closest. */
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
    struct sigaction act = {.sa_handler = note_signal};
    sigemptyset(&act.sa_mask);
    sigaction(SIGWINCH, &act, NULL);
    sigaction(SIGCONT, &act, NULL);
    if (!(in->el = el_init("quoll", stdin, stdout, stderr)))
        return -1;
    el_set(in->el, EL_CLIENTDATA, in);
    el_set(in->el, EL_PROMPT_ESC, show_prompt, '\1');
    el_set(in->el, EL_EDITOR, "emacs");
    el_set(in->el, EL_GETCFN, read_key);
    history_open(in);
    el_source(in->el, NULL); /* ~/.editrc */
    return 0;
}

struct input *input_new(bool terminal, bool colour)
{
    struct input *in = calloc(1, sizeof *in);
    if (!in)
        return NULL;
    *in = (struct input){.terminal = terminal, .colour = colour, .prompt = "", .history_fd = -1};
    if (terminal && terminal_open(in) != 0) {
        free(in);
        return NULL;
    }
    return in;
}

void input_free(struct input *in)
{
    if (!in)
        return;
    if (in->history)
        history_end(in->history);
    if (in->el)
        el_end(in->el);
    if (in->history_fd >= 0)
        close(in->history_fd);
    free(in->raw);
    free(in->clean);
    free(in);
}

/* ---- Lines and blocks --------------------------------------------------------------------------- */

static int put(struct input *in, const char *s, size_t n)
{
    if (n >= MAX_INPUT_BYTES - in->n_raw)
        return -1;
    if (n >= in->cap - in->n_raw) {
        size_t cap = 2 * (in->n_raw + n) + 256;
        char *grown = realloc(in->raw, cap);
        if (!grown)
            return -1;
        in->raw = grown;
        in->cap = cap;
    }
    memcpy(in->raw + in->n_raw, s, n);
    in->n_raw += n;
    in->raw[in->n_raw] = '\0';
    return 0;
}

static enum input_kind too_long(char *err, size_t errlen)
{
    err_set(err, errlen, "standard input: a message of more than %d MiB", MAX_INPUT_BYTES >> 20);
    return INPUT_FAILED;
}

/* More of stdin into in->ahead; INPUT_LINE: there is some. */
static enum input_kind read_ahead(struct input *in, char *err, size_t errlen)
{
    ssize_t n;
    do {
        wait_for_input();
        if (tool_interrupts() > 0)
            return INPUT_INTERRUPT;
        n = read(STDIN_FILENO, in->ahead, sizeof in->ahead);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        err_set(err, errlen, "standard input: %s", strerror(errno));
        return INPUT_FAILED;
    }
    in->ahead_at = 0;
    in->n_ahead = (size_t)n;
    return n > 0 ? INPUT_LINE : INPUT_END;
}

/* Appends one line of stdin, without its newline. */
static enum input_kind plain_line(struct input *in, char *err, size_t errlen)
{
    size_t begin = in->n_raw;
    const char *newline = NULL;
    enum input_kind kind = INPUT_LINE;
    while (!newline) {
        if (in->ahead_at == in->n_ahead && (kind = read_ahead(in, err, errlen)) != INPUT_LINE)
            break;
        const char *from = in->ahead + in->ahead_at;
        size_t n = in->n_ahead - in->ahead_at;
        if ((newline = memchr(from, '\n', n)))
            n = (size_t)(newline - from);
        if (put(in, from, n) != 0)
            return too_long(err, errlen);
        in->ahead_at += n + (newline ? 1 : 0);
    }
    if (kind == INPUT_INTERRUPT || kind == INPUT_FAILED || (kind == INPUT_END && in->n_raw == begin))
        return kind;
    if (in->n_raw > begin && in->raw[in->n_raw - 1] == '\r')
        in->raw[--in->n_raw] = '\0';
    return INPUT_LINE;
}

static enum input_kind edited_line(struct input *in, const char *prompt, char *err, size_t errlen)
{
    int n;
    in->prompt = prompt;
    in->typed = false;
    const char *line = el_gets(in->el, &n);
    if (tool_interrupts() > 0 || !line) {
        tool_write("\n", 1); /* the line that was begun stays on the screen */
        if (tool_interrupts() == 0)
            return INPUT_END;
        return in->typed && tool_interrupts() == 1 ? INPUT_CANCELLED : INPUT_INTERRUPT;
    }
    history_add(in, line);
    size_t len = strlen(line);
    if (len > 0 && line[len - 1] == '\n')
        len--;
    return put(in, line, len) == 0 ? INPUT_LINE : too_long(err, errlen);
}

static enum input_kind next_line(struct input *in, const char *prompt, char *err, size_t errlen)
{
    return in->terminal ? edited_line(in, prompt, err, errlen) : plain_line(in, err, errlen);
}

/* Where the quotes that end the block begin: three at the end of a line. 0: not there yet. */
static size_t closing_quotes(const struct input *in)
{
    size_t end = in->n_raw;
    while (end > 0 && (in->raw[end - 1] == ' ' || in->raw[end - 1] == '\t'))
        end--;
    return end >= 6 && memcmp(in->raw + end - 3, "\"\"\"", 3) == 0 ? end - 3 : 0;
}

/* The rest of a block whose first line was read; *end is that of its text. */
static enum input_kind rest_of_block(struct input *in, size_t *end, char *err, size_t errlen)
{
    while ((*end = closing_quotes(in)) == 0) {
        if (put(in, "\n", 1) != 0)
            return too_long(err, errlen);
        enum input_kind kind = next_line(in, ". ", err, errlen);
        *end = in->n_raw;
        if (kind == INPUT_END && !in->terminal)
            break; /* a file that ends inside a block ends the block */
        if (kind != INPUT_LINE)
            return kind;
    }
    return INPUT_BLOCK;
}

enum input_kind input_next(struct input *in, const char **text, char *err, size_t errlen)
{
    in->n_raw = 0;
    if (put(in, "", 0) != 0)
        return too_long(err, errlen);
    enum input_kind kind = next_line(in, "> ", err, errlen);
    size_t begin = 0, end = in->n_raw;
    if (kind == INPUT_LINE && strncmp(in->raw, "\"\"\"", 3) == 0) {
        kind = rest_of_block(in, &end, err, errlen);
        begin = 3;
        /* the quotes' own lines are no part of the text */
        if (begin < end && in->raw[begin] == '\n')
            begin++;
        if (begin < end && in->raw[end - 1] == '\n')
            end--;
    }
    if (kind != INPUT_LINE && kind != INPUT_BLOCK)
        return kind;
    free(in->clean);
    if (!(in->clean = text_clean(in->raw + begin, end - begin))) {
        err_set(err, errlen, "out of memory");
        return INPUT_FAILED;
    }
    *text = in->clean;
    return kind;
}
