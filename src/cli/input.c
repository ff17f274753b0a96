/*
 * Whole values read from files: large ones are mapped, so that a value of
 * gigabytes takes no memory of ours, the others are read into a buffer that
 * is used again. The length a file claims is a hint: reading goes on to the
 * end, as files in /proc need it.
 */
#include "input.h"

#include "fail.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAP_FROM = 4 << 20, BUFFER_LEAST = 64 << 10 };

static void unmap(struct input *in)
{
    if (in->map != NULL)
        (void)munmap(in->map, in->map_len);
    in->map = NULL;
}

static int map_file(struct input *in, int fd, size_t len)
{
    void *map = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);

    if (map == MAP_FAILED)
        return errno;
    (void)madvise(map, len, MADV_SEQUENTIAL);
    in->map = map;
    in->map_len = len;
    in->bytes = (kist_bytes){ map, len };
    return 0;
}

static int make_room(struct input *in, size_t room)
{
    unsigned char *buffer;

    if (room <= in->room)
        return 0;
    buffer = realloc(in->buffer, room);
    if (buffer == NULL)
        return ENOMEM;
    in->buffer = buffer;
    in->room = room;
    return 0;
}

static int read_all(struct input *in, int fd, size_t hint)
{
    size_t used = 0;
    int err = make_room(in, hint < BUFFER_LEAST ? BUFFER_LEAST : hint + 1);

    while (err == 0) {
        ssize_t n = read(fd, in->buffer + used, in->room - used);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            break;
        used += (size_t)n;
        if (used > KIST_VALUE_MAX)
            return EFBIG;
        if (used == in->room)
            err = make_room(in, 2 * in->room);
    }
    in->bytes = (kist_bytes){ in->buffer, used };
    return err;
}

int input_read(struct input *in, int fd)
{
    struct stat sb;
    size_t len = 0;

    unmap(in);
    if (fstat(fd, &sb) < 0)
        return errno;
    if (S_ISDIR(sb.st_mode))
        return EISDIR;
    if (S_ISREG(sb.st_mode) && sb.st_size > 0 && lseek(fd, 0, SEEK_CUR) == 0) {
        if ((uint64_t)sb.st_size > KIST_VALUE_MAX)
            return EFBIG;
        len = (size_t)sb.st_size;
    }
    if (len >= MAP_FROM && map_file(in, fd, len) == 0)
        return 0;
    return read_all(in, fd, len);
}

int input_read_file(struct input *in, const char *path)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat sb;
    int err = 0;

    if (fd < 0)
        return errno;
    if (fstat(fd, &sb) < 0)
        err = errno;
    else if (!S_ISREG(sb.st_mode))
        err = EINVAL;
    else
        err = input_read(in, fd);
    (void)close(fd);
    return err;
}

void input_free(struct input *in)
{
    unmap(in);
    free(in->buffer);
    *in = (struct input){ 0 };
}

static void die_of_sigbus(int sig)
{
    static const char text[] =
        "kist: a file was cut short, or its disk failed, while it was being read; nothing "
        "unfinished was kept, try again\n";

    (void)sig;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(STATUS_SYSTEM);
}

void input_guard(void)
{
    struct sigaction action = { .sa_handler = die_of_sigbus };

    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGBUS, &action, NULL);
}
