/* mounts.c - by mount(8), umount(8) and mkfs.ext4(8). */
#include "seam/mounts.h"

#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHUTDOWN _IOR('X', 125, uint32_t) /* EXT4_IOC_SHUTDOWN, and others' */
enum { SHUTDOWN_NO_LOG_FLUSH = 2, ARGS_MAX = 16 };

bool run_program(const char *name, ...)
{
    char *args[ARGS_MAX] = { (char *)(uintptr_t)name };
    va_list list;
    pid_t pid;
    int status, n = 1;

    va_start(list, name);
    while ((args[n] = va_arg(list, char *)))
        must(++n < ARGS_MAX);
    va_end(list);
    pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);

        (void)dup2(null, 0);
        (void)dup2(null, 1);
        (void)dup2(null, 2);
        (void)execvp(name, args);
        _exit(127);
    }
    status = child_wait(pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

const char *mounts_private(void)
{
    if (geteuid() != 0)
        return "needs root";
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return "no mount namespace of its own here";
    return NULL;
}

const char *mounts_make(const char *image, int mib)
{
    int fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    must(fd >= 0 && ftruncate(fd, (off_t)mib << 20) == 0);
    (void)close(fd);
    if (!run_program("mkfs.ext4", "-q", "-F", image, (char *)NULL))
        return "no mkfs.ext4 here";
    return NULL;
}

bool mounts_loop(const char *image, const char *at)
{
    return run_program("mount", "-t", "ext4", "-o", "loop", image, at, (char *)NULL);
}

bool mounts_bind(const char *from, const char *at)
{
    return mount(from, at, NULL, MS_BIND, NULL) == 0;
}

bool mounts_off(const char *at)
{
    return umount(at) == 0;
}

bool mounts_power_cut(const char *at)
{
    uint32_t how = SHUTDOWN_NO_LOG_FLUSH;
    int fd = open(at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool done = fd >= 0 && ioctl(fd, SHUTDOWN, &how) == 0;

    (void)close(fd);
    return done;
}
