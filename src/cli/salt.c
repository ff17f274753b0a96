/*
 * `kist salt`: the tools for Salt masters. They are of Python, as Salt is, and
 * come with the Python package kist as the program kist-salt.
 */
#include "fail.h"
#include "verbs.h"

#include <errno.h>
#include <unistd.h>

int salt_run(char **argv)
{
    static char program[] = "kist-salt";

    argv[0] = program;
    (void)execvp(program, argv);
    if (errno != ENOENT)
        return fail_errno(errno, "cannot run", program);
    complain("'kist salt' needs the Python package kist, whose program kist-salt is not in PATH; "
             "'pip install kist' brings it, and then 'python3 -m kist.salt' does the same");
    return STATUS_SYSTEM;
}
