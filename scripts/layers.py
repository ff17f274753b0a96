"""The layers of src/, as scripts/check-layers and scripts/check-symbols prove
them; src/README.md tells the same in words."""

# Each layer may use itself and the ones in its list.
LAYERS = {
    "base": [],
    "heap": ["base"],
    "index": ["base", "heap"],
    "bank": ["base", "heap", "index"],
    "store": ["base", "heap", "index", "bank"],
    "pages": ["base"],  # stands beside the store
    "cli": [],  # a program like any other: the public headers alone
}
PROGRAMS = ["cli"]

# What the library may use of the outside: C itself and the hash. Headers of
# the operating system are for base alone, and for programs.
HEADERS = """
    assert.h errno.h inttypes.h limits.h stdarg.h stdatomic.h stdbool.h stddef.h stdint.h
    stdio.h stdlib.h string.h xxhash.h emmintrin.h immintrin.h arm_neon.h kist/kist.h kist/pages.h
""".split()

# What the library's objects may ask of the C library: functions that work on
# memory alone. System calls, files and allocation go through base/os.h.
FUNCTIONS = """
    memchr memcmp memcpy memmove memrchr memset
    strchr strcmp strcspn strlen strncmp strnlen strrchr
    snprintf vsnprintf strerrordesc_np strtoul strtoull qsort
    abort __assert_fail __errno_location
""".split()
# As regular expressions: the hash, what the compiler adds by itself, and
# mutexes, which os.h hands out as they are.
FAMILIES = [
    r"XXH\w+",
    r"_GLOBAL_OFFSET_TABLE_|__stack_chk_fail|__tls_get_addr|__\w+_chk",
    r"pthread_mutex_(init|lock|trylock|unlock|destroy)|pthread_join",
]
# In base outside of os.c: threads, and no more.
BASE_FAMILIES = [r"pthread_\w+"]
# The files that talk to the operating system, behind the table of base/os.h.
SYSTEM_FILES = ["base/os.c", "base/fault.c"]
