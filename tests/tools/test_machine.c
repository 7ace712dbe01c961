/* What the machine offers, as far as it can be told here. */
#include "tests/test.h"
#include "tools/tools.h"

#include <sched.h>

START_TEST(affinity_limits_threads)
{
    cpu_set_t mask, one;
    ck_assert_int_eq(sched_getaffinity(0, sizeof mask, &mask), 0);
    ck_assert_int_ge(machine_threads(), 1);
    ck_assert_int_le(machine_threads(), CPU_COUNT(&mask));
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &mask))
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
        ck_assert_int_eq(machine_threads(), 1);
    }
    ck_assert_int_eq(sched_setaffinity(0, sizeof mask, &mask), 0);
}
END_TEST

START_TEST(memory_and_time_are_known)
{
    ck_assert_uint_gt(machine_peak_memory(), 1 << 20);
    ck_assert_uint_gt(machine_free_memory(), 1 << 20);
    ck_assert_uint_lt(machine_free_memory(), (uint64_t)1 << 50);
    double t = machine_seconds();
    ck_assert_double_ge(machine_seconds(), t);
    ck_assert_int_ne(machine_cpu_name()[0], '\0');
}
END_TEST

static Suite *machine_suite(void)
{
    Suite *suite = suite_create("machine");
    TCase *tc = tcase_create("machine");
    tcase_add_test(tc, affinity_limits_threads);
    tcase_add_test(tc, memory_and_time_are_known);
    suite_add_tcase(suite, tc);
    return suite;
}

TEST_SUITE(machine_suite)
