/* Files of a test: bytes in memory under a path, and what to expect of opening them. */
#ifndef QUOLL_TEST_IMAGE_H
#define QUOLL_TEST_IMAGE_H

#include "weights/weights.h"

/* Path of an anonymous file that holds these bytes; valid until the next call. */
const char *image_path(const void *data, size_t len);

/* Opens the bytes; the test fails when they do not open. */
struct weights *image_open(const void *data, size_t len);

/* The bytes do not open, *out stays NULL, and the message is one line that begins with the path and
 * contains `expected`. */
void image_is_bad(const void *data, size_t len, const char *expected);
void path_is_bad(const char *path, const char *expected);

/* Opens the bytes, whatever they are: either the above, or every getter works and every tensor's first
 * and last byte can be read. Returns whether they opened. */
bool image_is_safe(const void *data, size_t len);
bool path_is_safe(const char *path);

/* A repeatable random number. */
uint64_t test_random(uint64_t *state);

#endif
