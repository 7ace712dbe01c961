/* What decides a quantised model, beside the types of its tensors: as JSON, which a journal compares. */
#ifndef QUOLL_FACTS_H
#define QUOLL_FACTS_H

#include "lab/calibrate.h"
#include "lab/importance.h"

#include <jansson.h>

/* The source's files by their sizes and times of last change, contents of the others by hashes. c, t and lora
 * may be NULL. A new reference; NULL: out of memory. */
json_t *quantize_facts(const struct weights *w, const struct calibration *c, const struct importance *t,
                       const struct lora_option *lora, size_t n_lora);

#endif
