#include "tests/tools/chat_model.h"

#include "tests/model/gguf_edit.h"
#include "tests/tools/cli.h"

const char *chat_model(const char *chat_template)
{
    const char *path = cli_model();
    if (!path)
        return NULL;
    struct edit *g = edit_read(path);
    edit_set_str(g, "tokenizer.chat_template", chat_template);
    path = edit_write(g);
    edit_free(g);
    return path;
}
