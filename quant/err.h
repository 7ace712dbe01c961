/* One-line error messages, filled by whoever finds the fault and printed by tools/ only.
 *
 * Every fallible function below tools/ takes (char *err, size_t errlen), returns 0 or -1 and fills
 * err with "FILE: what is wrong, where (tensor, key or byte offset)". */
#ifndef QUOLL_ERR_H
#define QUOLL_ERR_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

/* Fills err (when there is room for one) and returns -1, so that `return err_set(…)` reads well. */
__attribute__((format(printf, 3, 4))) static inline int err_set(char *err, size_t errlen, const char *fmt,
                                                                ...)
{
    if (err && errlen > 0) {
        va_list ap;
        va_start(ap, fmt);
        (void)vsnprintf(err, errlen, fmt, ap);
        va_end(ap);
    }
    return -1;
}

#endif
