/* The ready-made devices, and the guard against SIGBUS. */
#include "paged.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LEN = 20000 };

static unsigned char bytes[3 * LEN];

static int file_of(const char *dir, uint64_t len)
{
    char *path = path_join(dir, "file");
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(mix(3, i) | 1); /* no zero among them */
    must(fd >= 0 && pwrite(fd, bytes, len, 0) == (ssize_t)len);
    free(path);
    return fd;
}

static kist_pages *open_over(const kist_device *device, uint32_t page)
{
    kist_pages_options opt = { .size = sizeof opt, .page_bytes = page, .cache_pages = 4 };
    kist_pages *p;

    must_ok(kist_pages_open(&p, device, &opt));
    return p;
}

static void must_read(kist_pages *p, uint64_t len)
{
    static unsigned char buf[sizeof bytes];

    must_ok(kist_pages_read(p, 0, buf, len));
    must(memcmp(buf, bytes, len) == 0);
    must_rc(kist_pages_read(p, 0, buf, len + 1), KIST_EBOUNDS);
    must_rc(kist_pages_read(p, len, buf, 1), KIST_EBOUNDS);
}

TEST(a_file_reads_the_same_by_every_kind_of_device_and_is_followed_when_it_grows)
{
    char *dir = tmp_dir(TMP_DISK);

    for (uint32_t kind = KIST_DEVICE_PREAD; kind <= KIST_DEVICE_MMAP; kind++)
        for (uint32_t page = 64; page <= 65536; page *= 4) {
            int fd = file_of(dir, 0);
            kist_device device;
            kist_pages *p;
            uint64_t len = 99;

            must_ok(kist_device_open(&device, fd, kind));
            must_ok(kist_device_length(&device, &len));
            must(len == 0);
            p = open_over(&device, page);
            must_read(p, 0);
            for (len = 1; len <= sizeof bytes; len = len * 5 / 2 + 1) {
                must(pwrite(fd, bytes, len, 0) == (ssize_t)len);
                kist_pages_invalidate(p, 0, UINT64_MAX);
                must_read(p, len);
            }
            kist_pages_close(p);
            kist_device_close(&device);
            kist_device_close(&device);
            (void)close(fd);
        }
    kist_device_close(NULL);
    free(dir);
}

/* Larger than the room that is kept for a map to grow in. */
TEST(a_map_that_has_no_room_left_is_made_anew)
{
    char *dir = tmp_dir(TMP_DISK);
    int fd = file_of(dir, LEN);
    kist_device device;
    kist_pages *p;
    kist_slice first = { 0 };
    uint64_t far = UINT64_C(5) << 30;

    must_ok(kist_device_open(&device, fd, KIST_DEVICE_MMAP));
    p = open_over(&device, 4096);
    must_ok(kist_pages_load(p, 0, 1, &first));
    for (int i = 0; i < 3; i++, far *= 2) {
        char word[4] = "";

        must(pwrite(fd, "far", 4, (off_t)far) == 4);
        must_ok(kist_pages_read(p, far, word, 4));
        must(strcmp(word, "far") == 0);
        must(memcmp(first.bytes.data, bytes, first.bytes.len) == 0);
    }
    kist_slice_release(p, &first);
    kist_pages_close(p);
    kist_device_close(&device);
    (void)close(fd);
    free(dir);
}

TEST(what_is_neither_a_file_nor_a_disk_is_refused)
{
    int pipes[2];
    kist_device device;

    must(pipe(pipes) == 0);
    must_rc(kist_device_open(&device, pipes[0], KIST_DEVICE_PREAD), KIST_EINVAL);
    must(device.arg == NULL);
    must_rc(kist_device_open(&device, -1, KIST_DEVICE_PREAD), -EBADF);
    must_rc(kist_device_open(&device, pipes[0], 0), KIST_EINVAL);
    must_rc(kist_device_open(&device, pipes[0], 4), KIST_EINVAL);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

TEST(memory_is_a_device_aligned_or_not)
{
    static _Alignas(16) unsigned char buf[LEN + 16];

    for (size_t skew = 0; skew < 16; skew++) {
        kist_device device;
        kist_pages *p;

        for (size_t i = 0; i < LEN; i++)
            buf[skew + i] = bytes[i];
        must_ok(kist_device_memory(&device, buf + skew, LEN, false));
        must((device.lend != NULL) == (skew == 0) && device.writev == NULL);
        p = open_over(&device, 256);
        must_read(p, LEN);
        kist_pages_close(p);
        kist_device_close(&device);
    }
}

/* ---- cut short -------------------------------------------------------- */

/* At every length; what was there is read, what was not is out of bounds. */
TEST(a_guarded_file_that_is_cut_short_is_an_error_and_no_signal)
{
    char *dir = tmp_dir(TMP_DISK);
    int fd = file_of(dir, LEN);
    struct rng rng = { test_seed() };

    for (uint64_t n = test_scaled(500); n > 0; n--) {
        uint64_t cut = rng_below(&rng, LEN);
        uint32_t page = 64u << rng_below(&rng, 9);
        kist_device device;
        kist_pages *p;

        test_case = n;
        must(pwrite(fd, bytes, LEN, 0) == LEN);
        must_ok(kist_device_open(&device, fd, KIST_DEVICE_GUARDED));
        p = open_over(&device, page);
        must(ftruncate(fd, (off_t)cut) == 0);
        must_read(p, cut);
        kist_pages_close(p);
        kist_device_close(&device);
    }
    test_case = 0;
    (void)close(fd);
    free(dir);
}

struct cutter {
    char *dir;
    int fd;
};

/* Cut and lengthened without end by another process: every byte that is read
 * is right, or it is an error. */
static void cut_again_and_again(void *arg)
{
    const struct cutter *c = arg;

    for (uint64_t i = 0;; i++) {
        (void)!ftruncate(c->fd, (off_t)(mix(i, 1) % LEN));
        (void)!pwrite(c->fd, bytes, LEN, 0);
    }
}

TEST(guarded_reads_beside_a_process_that_cuts_the_file_are_right_or_fail)
{
    struct cutter c = { .dir = tmp_dir(TMP_DISK) };
    kist_device device;
    kist_pages *p;
    uint64_t good = 0, bad = 0;
    pid_t pid;

    c.fd = file_of(c.dir, LEN);
    must_ok(kist_device_open(&device, c.fd, KIST_DEVICE_GUARDED));
    p = open_over(&device, 4096);
    pid = child_start(cut_again_and_again, &c);
    for (uint64_t n = test_scaled(20000); n > 0; n--) {
        uint64_t addr = mix(n, 2) % (LEN - 16);
        unsigned char buf[16];
        int rc;

        kist_pages_invalidate(p, 0, UINT64_MAX);
        rc = kist_pages_read(p, addr, buf, sizeof buf);
        must(rc == KIST_OK || rc == KIST_EBOUNDS);
        good += rc == KIST_OK;
        bad += rc != KIST_OK;
        for (size_t i = 0; rc == KIST_OK && i < sizeof buf; i++)
            must(buf[i] == bytes[addr + i] || buf[i] == 0); /* a hole being filled */
    }
    child_kill(pid);
    must(good > 0);
    (void)printf("cut beside: %llu read, %llu out of bounds\n", (unsigned long long)good,
                 (unsigned long long)bad);
    kist_pages_close(p);
    kist_device_close(&device);
    (void)close(c.fd);
    free(c.dir);
}

/* ---- other handlers --------------------------------------------------- */

/* As threads do that leave all signals to another one. */
static void blocks_all_signals(void *arg)
{
    int fd = file_of(arg, LEN);
    kist_device device;
    kist_pages *p;
    sigset_t all;
    char byte;

    must_ok(kist_device_open(&device, fd, KIST_DEVICE_GUARDED));
    (void)sigfillset(&all);
    must(pthread_sigmask(SIG_BLOCK, &all, NULL) == 0);
    p = open_over(&device, 64);
    must_read(p, LEN);
    must(ftruncate(fd, 100) == 0);
    kist_pages_invalidate(p, 0, LEN);
    must_read(p, 100);
    must_rc(kist_pages_read(p, LEN - 1, &byte, 1), KIST_EBOUNDS);
}

TEST(a_thread_that_blocks_the_signal_is_guarded_too)
{
    char *dir = tmp_dir(TMP_DISK);

    in_child(blocks_all_signals, dir);
    free(dir);
}

/* A signal's handler that touches a page which is not there, and has a SIGBUS
 * handler of the program's put another in its place. */
static char *hole;
static volatile sig_atomic_t alarms_begun, alarms_done;

static void mend(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)context;
    must(info->si_addr == hole);
    must(mmap(hole, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == hole);
}

static void touch_hole(int sig)
{
    (void)sig;
    alarms_begun++;
    (void)*(volatile char *)hole;
    alarms_done++;
}

static void make_hole(int fd)
{
    hole = mmap(hole, 4096, PROT_READ, MAP_SHARED | (hole ? MAP_FIXED : 0), fd, 0);
    must(hole != MAP_FAILED);
}

static void other_handlers_touch(void *arg)
{
    enum { BIG = 8 << 20, TIMES = 20 };
    struct sigaction bus = { .sa_sigaction = mend, .sa_flags = SA_SIGINFO };
    struct sigaction alarm = { .sa_handler = touch_hole };
    const struct itimerval soon = { .it_value.tv_usec = 500 };
    int fd = file_of(arg, LEN), empty = open("/dev/shm", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    char *buf = malloc(BIG);
    kist_device device;

    if (empty < 0)
        empty = open(arg, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    must(buf && empty >= 0 && ftruncate(fd, BIG) == 0);
    must(sigaction(SIGBUS, &bus, NULL) == 0);
    must(sigaction(SIGALRM, &alarm, NULL) == 0);
    must_ok(kist_device_open(&device, fd, KIST_DEVICE_GUARDED));
    while (alarms_begun < TIMES) {
        int now = alarms_begun;

        make_hole(empty);
        must(setitimer(ITIMER_REAL, &soon, NULL) == 0);
        while (alarms_begun == now)
            must(device.map(device.arg, 0, buf, BIG) == BIG);
        must(alarms_done == alarms_begun);
    }
    free(buf);
    kist_device_close(&device);
}

TEST(what_another_handler_touches_during_a_copy_is_not_the_guards)
{
    char *dir = tmp_dir(TMP_DISK);

    in_child(other_handlers_touch, dir);
    free(dir);
}

static sigjmp_buf back;
static volatile sig_atomic_t came;
static volatile int mask_was; /* was SIGUSR1 blocked? */

static void programs_own(int sig, siginfo_t *info, void *context)
{
    sigset_t now;

    (void)sig, (void)context;
    (void)pthread_sigmask(SIG_BLOCK, NULL, &now);
    mask_was = sigismember(&now, SIGUSR1) && sigismember(&now, SIGBUS);
    came += info->si_addr != NULL;
    siglongjmp(back, 1);
}

static void touch_what_is_cut(const char *dir)
{
    char *path = path_join(dir, "touched");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    volatile const char *map;

    must(fd >= 0 && ftruncate(fd, 4096) == 0);
    map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    must(map != MAP_FAILED && ftruncate(fd, 0) == 0);
    (void)map[0];
}

static void guard(const char *dir)
{
    int fd = file_of(dir, LEN);
    kist_device device;
    kist_pages *p;

    must_ok(kist_device_open(&device, fd, KIST_DEVICE_GUARDED));
    p = open_over(&device, 64);
    must(ftruncate(fd, 100) == 0);
    must_read(p, 100);
}

/* Its handler, its mask, its jump out of it; twice, with guarded reads between. */
static void with_own_handler(void *arg)
{
    struct sigaction own = { .sa_sigaction = programs_own, .sa_flags = SA_SIGINFO };

    (void)sigaddset(&own.sa_mask, SIGUSR1);
    must(sigaction(SIGBUS, &own, NULL) == 0);
    guard(arg);
    for (int i = 1; i <= 3; i++) {
        if (sigsetjmp(back, 1) == 0)
            touch_what_is_cut(arg);
        must(came == i && mask_was);
        guard(arg);
    }
}

TEST(a_programs_own_handler_gets_the_signals_that_are_not_the_guards)
{
    char *dir = tmp_dir(TMP_DISK);

    in_child(with_own_handler, dir);
    free(dir);
}

static struct sigaction ours_then;
static volatile sig_atomic_t handed_on, came_first;

static void first_of_all(int sig)
{
    (void)sig;
    came_first++;
    siglongjmp(back, 1);
}

static void hands_on(int sig, siginfo_t *info, void *context)
{
    handed_on++;
    ours_then.sa_sigaction(sig, info, context);
}

/* first_of_all, the guard, hands_on (to the guard), the guard again: a signal
 * goes through all of them, and reads stay guarded. */
static void with_a_chain(void *arg)
{
    struct sigaction own = { .sa_sigaction = hands_on, .sa_flags = SA_SIGINFO };

    must(signal(SIGBUS, first_of_all) != SIG_ERR);
    guard(arg);
    must(sigaction(SIGBUS, &own, &ours_then) == 0);
    guard(arg);
    for (int i = 1; i <= 3; i++) {
        if (sigsetjmp(back, 1) == 0)
            touch_what_is_cut(arg);
        must(handed_on == i && came_first == i);
        guard(arg);
    }
}

TEST(a_handler_that_hands_on_to_the_guard_is_no_endless_chain)
{
    char *dir = tmp_dir(TMP_DISK);

    in_child(with_a_chain, dir);
    free(dir);
}

static void without_handler(void *arg)
{
    (void)signal(SIGBUS, SIG_DFL);
    guard(arg);
    touch_what_is_cut(arg);
}

static void killed_by_kill(void *arg)
{
    (void)signal(SIGBUS, SIG_DFL);
    guard(arg);
    (void)raise(SIGBUS);
    _exit(0);
}

static void ignored_when_sent(void *arg)
{
    (void)signal(SIGBUS, SIG_IGN);
    guard(arg);
    (void)raise(SIGBUS);
    (void)raise(SIGBUS);
    guard(arg);
    touch_what_is_cut(arg); /* this can't be ignored */
}

TEST(without_a_handler_a_sigbus_of_another_ends_the_program_as_ever)
{
    char *dir = tmp_dir(TMP_DISK);
    void (*const bodies[])(void *) = { without_handler, killed_by_kill, ignored_when_sent };

    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        int status = child_wait(child_start(bodies[i], dir));

        must(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    }
    free(dir);
}

/* ---- a block device --------------------------------------------------- */

static int loop_device(const char *dir, char *name, size_t cap)
{
    char *command = NULL;
    FILE *out;
    bool got;

    must(asprintf(&command, "losetup --show -f %s/file 2>/dev/null", dir) > 0);
    out = popen(command, "r");
    got = out && fgets(name, (int)cap, out) != NULL;
    if (out)
        (void)pclose(out);
    free(command);
    if (!got)
        return -1;
    name[strcspn(name, "\n")] = '\0';
    return open(name, O_RDWR | O_CLOEXEC);
}

/* By a writer with syncs; what arrives is in the file below. Nothing is written
 * behind the end of a device that cannot grow. */
static void write_to(int loop, int fd, uint64_t size)
{
    kist_writer_options opt = { .size = sizeof opt, .flags = KIST_WRITER_SYNC };
    unsigned char got[8];
    kist_device device;
    kist_pages *p;
    kist_writer *w;
    int rc;

    must_ok(kist_device_open(&device, loop, KIST_DEVICE_PREAD));
    p = open_over(&device, 4096);
    must_ok(kist_writer_open(&w, p, &opt));
    for (uint64_t addr = 3; addr + 8 <= size; addr += 1000)
        must_ok(kist_writer_set_u64_be(w, addr, addr));
    must_ok(kist_writer_commit(w));
    for (uint64_t addr = 3; addr + 8 <= size; addr += 1000) {
        must(pread(fd, got, 8, (off_t)addr) == 8);
        must(got[7] == (addr & 255) && got[6] == (addr >> 8 & 255) && got[0] == 0);
    }
    must_ok(kist_writer_set_u8(w, size, 1));
    rc = kist_writer_commit(w);
    must(rc == KIST_EFULL || rc == KIST_EFILESIZE);
    kist_writer_close(w);
    kist_pages_close(p);
    kist_device_close(&device);
}

TEST(a_block_device_is_read_and_written_by_every_kind_of_device_and_o_direct)
{
    char *dir = tmp_dir(TMP_DISK), name[64], *command = NULL;
    enum { SIZE = 48 * 1024 };
    int fd = file_of(dir, SIZE), loop, direct;

    must(sizeof bytes >= SIZE);
    if (geteuid() != 0)
        test_skip("only root makes a loop device");
    loop = loop_device(dir, name, sizeof name);
    if (loop < 0)
        test_skip("no loop device is to be had");
    direct = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
    for (uint32_t kind = KIST_DEVICE_PREAD; kind <= KIST_DEVICE_MMAP + 1; kind++)
        for (uint32_t page = 512; page <= 65536; page *= 2) {
            bool is_direct = kind > KIST_DEVICE_MMAP;
            kist_device device;
            kist_pages *p;
            uint64_t len = 0;

            if (is_direct && (direct < 0 || page < 4096))
                continue;
            must_ok(kist_device_open(&device, is_direct ? direct : loop,
                                     is_direct ? (uint32_t)KIST_DEVICE_PREAD : kind));
            must_ok(kist_device_length(&device, &len));
            must(len == SIZE);
            p = open_over(&device, page);
            must_read(p, SIZE);
            kist_pages_close(p);
            kist_device_close(&device);
        }
    write_to(loop, fd, SIZE);
    (void)close(direct);
    (void)close(loop);
    (void)close(fd);
    must(asprintf(&command, "losetup -d %s", name) > 0 && system(command) == 0);
    free(command);
    free(dir);
}
