/* image - see image.h. */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

/* nftw() hands its callback no argument. */
static struct image *taking;
static const struct image *cleaning;

static unsigned char *read_file(const char *path, size_t len)
{
    unsigned char *bytes = malloc(len ? len : 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    must(fd >= 0 && bytes != NULL);
    for (size_t at = 0; at < len;) {
        ssize_t n = read(fd, bytes + at, len - at);
        must(n > 0);
        at += (size_t)n;
    }
    (void)close(fd);
    return bytes;
}

static void write_file(const char *path, int flags, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0600);

    if (fd < 0)
        (void)fprintf(stderr, "%s: %s\n", path, strerror(errno));
    must(fd >= 0);
    must(pwrite(fd, bytes, len, 0) == (ssize_t)len);
    must(ftruncate(fd, (off_t)len) == 0 && close(fd) == 0);
}

static int take_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    struct image_file *f;

    (void)kind, (void)at;
    if (!S_ISREG(st->st_mode))
        return 0;
    taking->files = realloc(taking->files, (taking->count + 1) * sizeof *taking->files);
    must(taking->files != NULL);
    f = &taking->files[taking->count++];
    f->name = strdup(path + strlen(taking->dir) + 1);
    f->len = (size_t)st->st_size;
    f->bytes = read_file(path, f->len);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const struct image_file *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static char *vault_path(const struct image *image, size_t file)
{
    char number_of[32];

    (void)snprintf(number_of, sizeof number_of, "%zu", file);
    return path_join(image->vault, number_of);
}

static void keep_second_names(const struct image *image)
{
    for (size_t i = 0; i < image->count; i++) {
        char *from = path_join(image->dir, image->files[i].name), *to = vault_path(image, i);
        must(link(from, to) == 0);
        free(from), free(to);
    }
}

struct image *image_take(const char *dir)
{
    struct image *image = calloc(1, sizeof *image);

    must(image != NULL);
    image->dir = strdup(dir);
    image->vault = tmp_dir(TMP_FAST);
    taking = image;
    must(nftw(dir, take_one, 16, FTW_PHYS) == 0);
    qsort(image->files, image->count, sizeof *image->files, by_name);
    keep_second_names(image);
    return image;
}

void image_free(struct image *image)
{
    for (size_t i = 0; i < image->count; i++) {
        free(image->files[i].name);
        free(image->files[i].bytes);
    }
    tmp_remove(image->vault);
    free(image->vault);
    free(image->files);
    free(image->dir);
    free(image);
}

static bool is_known(const struct image *image, const char *name)
{
    for (size_t i = 0; i < image->count; i++)
        if (strcmp(image->files[i].name, name) == 0)
            return true;
    return false;
}

static int remove_stranger(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)kind, (void)at;
    if (!S_ISDIR(st->st_mode) && !is_known(cleaning, path + strlen(cleaning->dir) + 1))
        must(unlink(path) == 0);
    return 0;
}

static bool same_inode(const char *a, const char *b)
{
    struct stat x, y;

    return lstat(a, &x) == 0 && lstat(b, &y) == 0 && x.st_ino == y.st_ino;
}

static void restore_one(const struct image *image, size_t i)
{
    const struct image_file *f = &image->files[i];
    char *path = path_join(image->dir, f->name), *kept = vault_path(image, i);

    if (!same_inode(path, kept)) {
        must(unlink(path) == 0 || errno == ENOENT);
        must(link(kept, path) == 0);
    }
    write_file(path, 0, f->bytes, f->len);
    free(path), free(kept);
}

void image_restore(const struct image *image)
{
    cleaning = image;
    must(nftw(image->dir, remove_stranger, 16, FTW_PHYS | FTW_DEPTH) == 0);
    for (size_t i = 0; i < image->count; i++)
        restore_one(image, i);
}

void image_flip(const struct image *image, size_t file, uint64_t bit)
{
    char *path = path_join(image->dir, image->files[file].name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    unsigned char byte = 0;

    must(fd >= 0 && pread(fd, &byte, 1, (off_t)(bit / 8)) == 1);
    byte ^= (unsigned char)(1u << bit % 8);
    must(pwrite(fd, &byte, 1, (off_t)(bit / 8)) == 1 && close(fd) == 0);
    free(path);
}

void image_write(const struct image *image, size_t file, const void *bytes, size_t len)
{
    char *path = path_join(image->dir, image->files[file].name);

    write_file(path, O_CREAT, bytes, len);
    free(path);
}

void image_copy(const struct image *image, const char *to)
{
    for (size_t i = 0; i < image->count; i++) {
        char *path = path_join(to, image->files[i].name);
        for (char *slash = path + strlen(to) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
            *slash = '\0';
            must(mkdir(path, 0700) == 0 || errno == EEXIST);
            *slash = '/';
        }
        write_file(path, O_CREAT, image->files[i].bytes, image->files[i].len);
        free(path);
    }
}

uint64_t image_bytes(const struct image *image)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < image->count; i++)
        sum += image->files[i].len;
    return sum;
}
