/* Dynamic programming over sizes: best[w] is the least cost of the items so far in w steps of room. */
#include "lab/budget.h"

#include <stdbool.h>
#include <stdlib.h>

enum { MAX_STEPS = 1 << 16 };

static uint64_t divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Of equally small ones the cheapest. */
static size_t smallest(const struct budget_item *item)
{
    size_t s = 0;
    for (size_t j = 1; j < item->n; j++)
        if (item->choice[j].bytes < item->choice[s].bytes ||
            (item->choice[j].bytes == item->choice[s].bytes && item->choice[j].cost < item->choice[s].cost))
            s = j;
    return s;
}

/* Bytes that a choice takes beyond the item's smallest. */
static uint64_t extra(const struct budget_item *item, size_t smallest, size_t j)
{
    return item->choice[j].bytes - item->choice[smallest].bytes;
}

/* best (steps + 1) before an item becomes best with it; made (steps + 1): which choice. */
static void add_item(double *best, uint8_t *made, const struct budget_item *item, size_t small, uint64_t unit,
                     size_t steps)
{
    for (size_t w = steps + 1; w-- > 0;) { /* from above: what is read below is still without the item */
        double least = best[w] + item->choice[small].cost;
        size_t by = small;
        for (size_t j = 0; j < item->n; j++) {
            const uint64_t e = extra(item, small, j), need = e / unit + (e % unit != 0);
            if (need <= w && best[w - need] + item->choice[j].cost < least) {
                least = best[w - need] + item->choice[j].cost;
                by = j;
            }
        }
        best[w] = least;
        made[w] = (uint8_t)by;
    }
}

/* While bytes are left: the change that fits and saves most. */
static void fill_up(size_t *chosen, const struct budget_item *item, size_t n, uint64_t left)
{
    for (bool changed = true; changed;) {
        double most = 0;
        size_t at = 0, to = 0;
        for (size_t i = 0; i < n; i++) {
            const struct budget_choice *now = &item[i].choice[chosen[i]];
            for (size_t j = 0; j < item[i].n; j++) {
                const struct budget_choice *c = &item[i].choice[j];
                if (now->cost - c->cost > most && (c->bytes <= now->bytes || c->bytes - now->bytes <= left)) {
                    most = now->cost - c->cost;
                    at = i;
                    to = j;
                }
            }
        }
        changed = most > 0;
        if (changed) {
            left += item[at].choice[chosen[at]].bytes;
            left -= item[at].choice[to].bytes;
            chosen[at] = to;
        }
    }
}

int budget_choose(size_t *chosen, const struct budget_item *item, size_t n, uint64_t limit)
{
    uint64_t room = limit, unit = 0, most = 0;
    bool fits = true;
    for (size_t i = 0; i < n; i++) {
        uint64_t largest = 0;
        chosen[i] = smallest(&item[i]);
        for (size_t j = 0; j < item[i].n; j++) {
            const uint64_t e = extra(&item[i], chosen[i], j);
            unit = divisor(unit, e);
            largest = e > largest ? e : largest;
        }
        most += largest;
        const uint64_t least = item[i].choice[chosen[i]].bytes;
        fits &= least <= room;
        room -= least <= room ? least : room;
    }
    if (!fits)
        return BUDGET_TOO_SMALL;
    room = room < most ? room : most;
    if (unit == 0 || room < unit)
        return 0;
    const bool exact = room / unit <= MAX_STEPS;
    if (!exact)
        unit = room / MAX_STEPS + 1;
    const size_t steps = (size_t)(room / unit);
    double *best = calloc(steps + 1, sizeof *best);
    uint8_t *made = calloc(n, steps + 1);
    int rc = best && made ? 0 : -1;
    for (size_t i = 0; rc == 0 && i < n; i++)
        add_item(best, made + i * (steps + 1), &item[i], chosen[i], unit, steps);
    if (rc == 0) {
        size_t w = steps;
        uint64_t left = room;
        while (w > 0 && best[w - 1] == best[steps])
            w--;
        for (size_t i = n; i-- > 0;) {
            const size_t j = made[i * (steps + 1) + w];
            const uint64_t e = extra(&item[i], chosen[i], j);
            w -= (size_t)(e / unit + (e % unit != 0));
            left -= e;
            chosen[i] = j;
        }
        if (!exact)
            fill_up(chosen, item, n, left);
    }
    free(made);
    free(best);
    return rc;
}
