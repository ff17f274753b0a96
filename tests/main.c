/* main - runs the cases of a test program; with an argument only those whose
 * names contain it. */
#include "support.h"

enum { CASES_MAX = 128 };

static struct CMUnitTest cases[CASES_MAX];
static size_t case_count;

void test_add(const char *name, void (*run)(void **state))
{
    if (case_count == CASES_MAX)
        abort();
    cases[case_count++] = (struct CMUnitTest){ .name = name, .test_func = run };
}

int main(int argc, char **argv)
{
    size_t kept = 0;
    int failed;

    for (size_t i = 0; i < case_count; i++)
        if (argc < 2 || strstr(cases[i].name, argv[1]))
            cases[kept++] = cases[i];
    support_begin();
    failed = _cmocka_run_group_tests(argv[0], cases, kept, NULL, NULL);
    support_end();
    return failed != 0;
}
