/* tools/folder_vocab.c: the tokenizer's files of a Hugging Face folder that a command writes. */
#ifndef QUOLL_FOLDER_VOCAB_H
#define QUOLL_FOLDER_VOCAB_H

#include "tools/tools.h"

/* Copies the files of the tokenizer that lie in w's folder, or makes a tokenizer.json and
 * tokenizer_config.json of a GGUF's vocabulary. Where there is none, or one that cannot be made, a note says
 * so. −1: a file cannot be read or written. */
int folder_vocab_write(const char *folder, const struct weights *w, char *err, size_t errlen);

#endif
