/*
 * memory - linked into a test program, this puts its stores into memory: each
 * directory that the library opens by a path becomes one of base/memdir.h, which
 * stays as long as the program, so that stores can be opened again, and twice.
 * Programs that look at the files themselves, or share them with children, are
 * none for it.
 */
#include "base/os.h"
#include "support.h"

#include <pthread.h>

enum { PATHS_MAX = 4096 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    char *path;
    int dir;
} known[PATHS_MAX];
static size_t count;

/* By its name, whoever has removed or made it since. */
static int memory_of(const char *path)
{
    size_t i = 0;
    int fd;

    (void)pthread_mutex_lock(&lock);
    while (i < count && strcmp(known[i].path, path) != 0)
        i++;
    if (i == count) {
        must(count < PATHS_MAX);
        known[count].path = strdup(path);
        known[count++].dir = os_memory_dir();
    }
    fd = os_open_under(known[i].dir, ".", OS_READ | OS_DIR, 0);
    (void)pthread_mutex_unlock(&lock);
    return fd;
}

/* It must be there on the disk, too. */
static int open_in_memory(const char *path, int flags)
{
    int fd = os_real_open_path(path, flags);

    if (fd < 0 || !(flags & OS_DIR))
        return fd;
    (void)os_real_close(fd);
    return memory_of(path);
}

__attribute__((constructor)) static void begin(void)
{
    os_seam.open_path = open_in_memory;
    test_in_memory = true;
}
