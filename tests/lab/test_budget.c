/* Choices under a size limit, against trying all of them. */
#include "lab/budget.h"
#include "tests/test.h"

#include <math.h>

enum { ITEMS = 6, CHOICES = 4 };

struct problem {
    struct budget_choice choice[ITEMS][CHOICES];
    struct budget_item item[ITEMS];
    uint64_t least, most; /* bytes of the smallest and the largest choices */
};

static uint32_t next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Sizes are multiples of `unit`; larger ones cost less as a rule, but not always. */
static void make(struct problem *p, uint32_t seed, uint64_t unit, uint64_t range)
{
    p->least = p->most = 0;
    for (int i = 0; i < ITEMS; i++) {
        const size_t n = 1 + next(&seed) % CHOICES;
        uint64_t least = UINT64_MAX, most = 0;
        for (size_t j = 0; j < n; j++) {
            const uint64_t steps = 1 + next(&seed) % range;
            p->choice[i][j].bytes = steps * unit;
            p->choice[i][j].cost = (0.5 + (double)(next(&seed) % 1000) / 1000) / (double)steps;
            least = steps * unit < least ? steps * unit : least;
            most = steps * unit > most ? steps * unit : most;
        }
        p->item[i] = (struct budget_item){p->choice[i], n};
        p->least += least;
        p->most += most;
    }
}

static double cost_of(const struct problem *p, const size_t *chosen, uint64_t *bytes)
{
    double cost = 0;
    *bytes = 0;
    for (int i = 0; i < ITEMS; i++) {
        ck_assert_uint_lt(chosen[i], p->item[i].n);
        cost += p->choice[i][chosen[i]].cost;
        *bytes += p->choice[i][chosen[i]].bytes;
    }
    return cost;
}

/* The least cost of all selections that fit. */
static double try_all(const struct problem *p, uint64_t limit)
{
    size_t chosen[ITEMS] = {0};
    double best = INFINITY;
    for (;;) {
        uint64_t bytes;
        const double cost = cost_of(p, chosen, &bytes);
        if (bytes <= limit && cost < best)
            best = cost;
        int i = 0;
        while (i < ITEMS && ++chosen[i] == p->item[i].n)
            chosen[i++] = 0;
        if (i == ITEMS)
            return best;
    }
}

START_TEST(the_best_of_all)
{
    for (uint32_t seed = 0; seed < 25; seed++) {
        struct problem p;
        make(&p, seed, 4096 + 32 * seed, 40);
        for (int k = 0; k <= 8; k++) {
            const uint64_t limit = p.least + (p.most - p.least) * (uint64_t)k / 8 + seed;
            size_t chosen[ITEMS];
            uint64_t bytes;
            ck_assert_int_eq(budget_choose(chosen, p.item, ITEMS, limit), 0);
            const double cost = cost_of(&p, chosen, &bytes);
            ck_assert_uint_le(bytes, limit);
            ck_assert_double_eq_tol(cost, try_all(&p, limit), 1e-12);
        }
    }
}
END_TEST

/* More steps than are looked at: no worse than the best in a room smaller by one of them per item. */
START_TEST(sizes_without_a_common_divisor)
{
    for (uint32_t seed = 100; seed < 104; seed++) {
        struct problem p;
        make(&p, seed, 1, 1 << 23);
        for (uint64_t k = 1; k < 6; k++) {
            const uint64_t room = (p.most - p.least) * k / 6, step = room / (1 << 16) + 1;
            size_t chosen[ITEMS];
            uint64_t bytes;
            ck_assert_int_eq(budget_choose(chosen, p.item, ITEMS, p.least + room), 0);
            const double cost = cost_of(&p, chosen, &bytes);
            ck_assert_uint_le(bytes, p.least + room);
            ck_assert_double_ge(cost, try_all(&p, p.least + room) - 1e-12);
            ck_assert_double_le(cost, try_all(&p, p.least + room - ITEMS * step) + 1e-12);
        }
    }
}
END_TEST

START_TEST(too_small)
{
    struct problem p;
    make(&p, 7, 1000, 40);
    size_t chosen[ITEMS];
    uint64_t bytes;
    ck_assert_int_eq(budget_choose(chosen, p.item, ITEMS, p.least - 1), BUDGET_TOO_SMALL);
    (void)cost_of(&p, chosen, &bytes);
    ck_assert_uint_eq(bytes, p.least);
    ck_assert_int_eq(budget_choose(chosen, p.item, ITEMS, UINT64_MAX), 0);
    ck_assert_double_eq_tol(cost_of(&p, chosen, &bytes), try_all(&p, UINT64_MAX), 1e-12);
    ck_assert_int_eq(budget_choose(chosen, p.item, 0, 0), 0);
}
END_TEST

/* What costs the same takes as little room as it can. */
START_TEST(the_smallest_of_equals)
{
    const struct budget_choice a[] = {{1, 300}, {1, 100}, {1, 200}}, b[] = {{2, 100}, {1, 300}, {1, 400}};
    const struct budget_item item[] = {{a, 3}, {b, 3}};
    size_t chosen[2];
    ck_assert_int_eq(budget_choose(chosen, item, 2, 1000), 0);
    ck_assert_uint_eq(chosen[0], 1);
    ck_assert_uint_eq(chosen[1], 1);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("budget");
    TCase *c = tcase_create("budget");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, the_best_of_all);
    tcase_add_test(c, sizes_without_a_common_divisor);
    tcase_add_test(c, too_small);
    tcase_add_test(c, the_smallest_of_equals);
    suite_add_tcase(s, c);
    return s;
}

TEST_SUITE(suite)
