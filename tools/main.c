/* The command table. */
#include "tools/tools.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct command commands[] = {
    {"chat", "talk to the model", cmd_chat},
    {"run", "complete a prompt", cmd_run},
    {"bench", "measure prompt and generation speed", cmd_bench},
    {"inspect", "show what a model file holds", cmd_inspect},
    {"tokenize", "text to token ids, and back", cmd_tokenize},
    {"template", "render a chat template", cmd_template},
    {"logits", "write the logits of a sequence", cmd_logits},
    {"convert", "write a model as a GGUF", cmd_convert},
    {"quantize", "write a model in fewer bits", cmd_quantize},
    {"perplexity", "how well a model predicts a text, how far it is from another", cmd_perplexity},
    {"imatrix", "which columns of the matrices matter on a text", cmd_imatrix},
    {"lab", "quantise in many ways, measure them side by side", cmd_lab},
    {"eval", "how many questions of a test a model answers rightly", cmd_eval},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int print_usage(void)
{
    printf("usage: quoll COMMAND [options]\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        printf("  %-11s %s\n", commands[i].name, commands[i].summary);
    printf(
        "\nquoll COMMAND --help lists a command's options; quoll --version says what this build can do.\n");
    return EXIT_OK;
}

static int print_version(void)
{
    enum isa level = isa_best();
    const char *wanted = getenv("QUOLL_ISA");
    if (wanted && wanted[0]) {
        int isa = isa_by_name(wanted);
        if (isa < 0)
            return usage_error("QUOLL_ISA=%s: no such CPU level", wanted);
        if (!isa_supported((enum isa)isa))
            return tool_error("QUOLL_ISA=%s: this CPU lacks it", wanted);
        level = (enum isa)isa;
    }
    printf("quoll %s\nbackends: cpu (", QUOLL_VERSION);
    const char *sep = "";
    for (int i = 0; i < ISA_COUNT; i++, sep = " ")
        printf("%s%s", sep, isa_name((enum isa)i));
    printf(")\ncpu: %s, level %s\n", machine_cpu_name(), isa_name(level));
    return EXIT_OK;
}

/* A file opened later must not become stdin, stdout or stderr because the caller closed one of them.
 * Reading end for all three: writing to a closed stdout stays an error. */
static void hold_standard_files(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

static int dispatch(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "help";
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0)
        return print_version();
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        const struct command *about = argc > 2 ? command_find(argv[2]) : NULL;
        if (argc > 2 && !about)
            return usage_error("no command '%s'; `quoll help` lists them", argv[2]);
        if (!about)
            return print_usage();
        char help[] = "--help", *help_argv[] = {argv[2], help, NULL};
        return about->run(2, help_argv);
    }
    const struct command *c = command_find(name);
    if (!c)
        return usage_error("no command '%s'; `quoll help` lists them", name);
    return c->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    hold_standard_files();
    /* A reader that went away is an error of write(), never the end by a signal. */
    signal(SIGPIPE, SIG_IGN);
    return tool_finish(dispatch(argc, argv));
}
