/* `quoll chat` on a terminal: a pseudo-terminal types and reads the screen. */
#include "tests/test.h"
#include "tests/tools/chat_model.h"
#include "tests/tools/cli.h"

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static char model[256], state[] = "/tmp/quoll-state-XXXXXX", history[64];
static bool here;
static int fd; /* the terminal's other side */
static pid_t pid;
static char screen[1 << 16]; /* what came since the last look */
static size_t n_screen;

static void begin(void)
{
    const char *path = chat_model(CHAT_TEMPLATE);
    here = path != NULL;
    (void)snprintf(model, sizeof model, "%s", here ? path : "");
    ck_assert_ptr_nonnull(mkdtemp(state));
    (void)snprintf(history, sizeof history, "%s/quoll/history", state);
    ck_assert_int_eq(setenv("XDG_STATE_HOME", state, 1), 0);
    ck_assert_int_eq(setenv("TERM", "xterm", 1), 0);
    ck_assert_int_eq(unsetenv("NO_COLOR"), 0);
    ck_assert_int_eq(setenv("LC_ALL", "C.UTF-8", 1), 0);
}

static void end(void)
{
    char folder[64];
    (void)snprintf(folder, sizeof folder, "%s/quoll", state);
    (void)unlink(history);
    (void)rmdir(folder);
    (void)rmdir(state);
    (void)unlink(model);
}

static void start(const char *extra, const char *value)
{
    const char *bin = getenv("QUOLL_BIN");
    struct winsize size = {.ws_row = 40, .ws_col = 100};
    n_screen = 0;
    pid = forkpty(&fd, NULL, NULL, &size);
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        execl(bin ? bin : "./quoll", "quoll", "chat", "-m", model, "--temp", "0", "-t", "1", "--ignore-eos",
              extra, value, (char *)NULL);
        _exit(99);
    }
}

static void type(const char *keys)
{
    ck_assert_int_eq((int)write(fd, keys, strlen(keys)), (int)strlen(keys));
}

/* What Ctrl-C does, but that a terminal also throws away output that it has not shown yet. */
static void interrupt(void)
{
    ck_assert_int_eq(kill(pid, SIGINT), 0);
}

/* More of the screen; false when the program has ended. */
static bool look(void)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    ck_assert_msg(poll(&p, 1, 30000) == 1, "nothing more came after: %s", screen);
    ck_assert_uint_lt(n_screen, sizeof screen - 1);
    ssize_t n = read(fd, screen + n_screen, sizeof screen - 1 - n_screen);
    if (n <= 0)
        return false;
    n_screen += (size_t)n;
    screen[n_screen] = '\0';
    return true;
}

/* Waits for this on the screen and forgets everything up to it. */
static void expect(const char *text)
{
    char *at;
    screen[n_screen] = '\0';
    while (!(at = strstr(screen, text)))
        ck_assert_msg(look(), "the end instead of '%s': %s", text, screen);
    at += strlen(text);
    n_screen -= (size_t)(at - screen);
    memmove(screen, at, n_screen + 1);
}

static void expect_end(int code)
{
    int status;
    while (look())
        continue;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == code, "status %x", status);
    close(fd);
}

/* The prompt is shown just before the keys are read one by one: wait for that as well. */
static void expect_prompt(const char *prompt)
{
    struct termios t;
    expect(prompt);
    for (int i = 0; i < 3000; i++) {
        ck_assert_int_eq(tcgetattr(fd, &t), 0);
        if (!(t.c_lflag & ICANON))
            return;
        (void)usleep(10000);
    }
    ck_abort_msg("the terminal still reads whole lines");
}

START_TEST(lines_are_edited_and_remembered)
{
    if (!here)
        return;
    start("-n", "4");
    expect("/help lists the commands");
    expect_prompt("\033[1m> ");
    type("h\xC3\xA9x\x7fllo\r"); /* a key too much, taken back */
    expect("as -n says");
    expect_prompt("\033[1m> ");
    type("/set\r");
    expect("top-k");
    expect_prompt("\033[1m> ");
    type("\004"); /* Ctrl-D */
    expect_end(0);

    struct stat st;
    ck_assert_int_eq(stat(history, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    start("-n", "4");
    expect_prompt("\033[1m> ");
    type("\033[A\033[A"); /* up twice */
    expect("h\xC3\xA9llo");
    type("\r");
    expect("as -n says");
    expect_prompt("\033[1m> ");
    type("/quit\r");
    expect_end(0);
}
END_TEST

START_TEST(control_c_stops_and_leaves)
{
    if (!here)
        return;
    start("-c", "100000");
    expect_prompt("\033[1m> ");
    type("hello\r");
    expect("hello\r\n");
    while (n_screen < 20)
        ck_assert(look());
    interrupt();
    expect("(stopped; Ctrl-C again or Ctrl-D leaves)");
    expect_prompt("\033[1m> ");
    type("half a line");
    expect("half a line");
    interrupt(); /* forgets the line, and the Ctrl-C before it */
    expect_prompt("\033[1m> ");
    interrupt();
    expect("(Ctrl-C again or Ctrl-D leaves)");
    expect_prompt("\033[1m> ");
    interrupt();
    expect_end(130);
}
END_TEST

START_TEST(termination_is_not_asked_twice)
{
    if (!here)
        return;
    start("-n", "4");
    expect_prompt("\033[1m> ");
    ck_assert_int_eq(kill(pid, SIGTERM), 0);
    expect_end(130);
}
END_TEST

START_TEST(blocks_have_a_prompt_of_their_own)
{
    if (!here)
        return;
    start("-n", "4");
    expect_prompt("\033[1m> ");
    type("\"\"\"one\r");
    expect_prompt("\033[1m. ");
    type("two\"\"\"\r");
    expect("as -n says");
    expect_prompt("\033[1m> ");
    type("\"\"\"one\r");
    expect_prompt("\033[1m. ");
    interrupt(); /* nothing typed on this line, yet the block is given up */
    expect_prompt("\033[1m> ");
    type("/undo\r");
    expect("0 left");
    type("\004");
    expect_end(0);
}
END_TEST

START_TEST(model_output_cannot_steer_the_terminal)
{
    if (!here)
        return;
    /* the token of the byte ESC, made the only answer */
    struct cli ids = CLI("\033", "tokenize", "-m", model, "--no-bos");
    char bias[32];
    (void)snprintf(bias, sizeof bias, "%ld=1e9", strtol(ids.out, NULL, 10));
    cli_free(&ids);
    ck_assert_int_eq(setenv("NO_COLOR", "1", 1), 0);
    start("--logit-bias", bias);
    expect_prompt("> ");
    type("/set n 3\r");
    expect_prompt("> ");
    type("go\r");
    expect("go\r\n");
    expect("\xE2\x90\x9B\xE2\x90\x9B\xE2\x90\x9B\r\n");
    type("/quit\r");
    expect_end(0);
}
END_TEST

START_TEST(without_a_home_there_is_no_history)
{
    if (!here)
        return;
    ck_assert_int_eq(unsetenv("XDG_STATE_HOME"), 0);
    ck_assert_int_eq(setenv("HOME", "/dev/null", 1), 0);
    start("-n", "2");
    expect_prompt("\033[1m> ");
    type("one\r");
    expect("as -n says");
    expect_prompt("\033[1m> ");
    type("\033[A\r"); /* this chat's own lines are remembered */
    expect("one");
    expect("as -n says");
    expect_prompt("\033[1m> ");
    type("\004");
    expect_end(0);
}
END_TEST

static Suite *chat_input_suite(void)
{
    Suite *s = suite_create("tools/chat_input");
    TCase *c = tcase_create("terminal");
    tcase_set_timeout(c, 60);
    tcase_add_checked_fixture(c, begin, end);
    tcase_add_test(c, lines_are_edited_and_remembered);
    tcase_add_test(c, control_c_stops_and_leaves);
    tcase_add_test(c, termination_is_not_asked_twice);
    tcase_add_test(c, blocks_have_a_prompt_of_their_own);
    tcase_add_test(c, model_output_cannot_steer_the_terminal);
    tcase_add_test(c, without_a_home_there_is_no_history);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(chat_input_suite)
