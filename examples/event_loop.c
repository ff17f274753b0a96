/*
 * event_loop - pages that come over a socket, in a program that never waits
 * for one of them.
 *
 * A child process serves the blocks of a file, some milliseconds late and in
 * no order, as a device far away would. The parent has a cache over it, of a
 * device that cannot be asked, and several tasks: each adds up the 64-bit
 * numbers of its part of the file. A task that gets KIST_ABSENT asks which
 * pages are missing, sends for them, and goes to sleep; poll() tells when
 * something has come; what came is handed in, and those that waited go on.
 * While one sleeps the others work: that is what a function `map`, which may
 * not return before it has its bytes, cannot do.
 *
 *     cc -o event_loop event_loop.c $(pkg-config --cflags --libs kist)
 *     ./event_loop FILE
 *
 * Prints the sum of all whole 64-bit numbers of the file. Exit status: 0, or 2.
 */
#include <kist/pages.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, TASKS = 4, AHEAD = 4 * PAGE, IN_FLIGHT = 64, BATCH = 8 };

/* What goes over the socket: a question, and an answer with its bytes. */
struct question {
    uint64_t addr, ticket;
};
struct answer {
    struct question about;
    uint64_t len; /* 0: the file ends before */
    unsigned char bytes[PAGE];
};

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(2);
}

/* ---- the server, far away --------------------------------------------- */

static void answer(int fd, int socket, const struct question *q)
{
    static struct answer a;
    ssize_t n = pread(fd, a.bytes, PAGE, (off_t)q->addr);

    a.about = *q;
    a.len = n > 0 ? (uint64_t)n : 0;
    if (send(socket, &a, sizeof a, 0) != sizeof a)
        exit(0); /* the parent has what it wants */
}

/* Gathers some questions, and answers the last one first. */
static _Noreturn void serve(int fd, int socket)
{
    struct question asked[BATCH];
    struct timespec late = { 0, 2000000 };

    for (;;) {
        int n = 0;

        if (recv(socket, &asked[n], sizeof asked[n], 0) != sizeof asked[n])
            exit(0);
        (void)nanosleep(&late, NULL);
        while (++n < BATCH &&
               recv(socket, &asked[n], sizeof asked[n], MSG_DONTWAIT) == sizeof asked[n])
            ;
        while (n > 0)
            answer(fd, socket, &asked[--n]);
    }
}

/* ---- the loop --------------------------------------------------------- */

struct task {
    uint64_t at, end; /* what is left of its part */
    uint64_t sum;
    bool waits;
};

struct loop {
    int socket;
    kist_pages *pages;
    uint64_t in_flight[IN_FLIGHT]; /* addresses of pages that were sent for */
    size_t count;
    struct task tasks[TASKS];
    uint64_t answers, longest_queue;
};

static bool is_in_flight(const struct loop *l, uint64_t addr)
{
    for (size_t i = 0; i < l->count; i++)
        if (l->in_flight[i] == addr)
            return true;
    return false;
}

/* Send for the pages of a gap that nobody has sent for yet. */
static void send_for(struct loop *l, const kist_pages_gap *gap)
{
    for (uint64_t addr = gap->addr; addr < gap->addr + gap->len; addr += PAGE) {
        struct question q = { addr, gap->ticket };

        if (l->count == IN_FLIGHT || is_in_flight(l, addr))
            continue;
        if (send(l->socket, &q, sizeof q, 0) != sizeof q)
            die("send");
        l->in_flight[l->count++] = addr;
    }
    if (l->count > l->longest_queue)
        l->longest_queue = l->count;
}

/* The task needs a page: ask for it, and for some of those behind it. */
static void fetch(struct loop *l, struct task *t)
{
    kist_pages_gap gaps[4];
    uint64_t want = t->end - t->at < AHEAD ? t->end - t->at : AHEAD;
    size_t n = 0;

    if (kist_pages_missing(l->pages, t->at, want, gaps, 4, &n) != KIST_OK)
        die("missing");
    for (size_t i = 0; i < n; i++)
        send_for(l, &gaps[i]);
    t->waits = n > 0;
}

/* Work until something is missing. */
static void run(struct loop *l, struct task *t)
{
    uint64_t v = 0;

    while (t->at < t->end && !t->waits) {
        int rc = kist_pages_get_u64_le(l->pages, t->at, &v);

        if (rc == KIST_OK) {
            t->sum += v;
            t->at += 8;
        } else if (rc == KIST_ABSENT) {
            fetch(l, t);
        } else {
            fprintf(stderr, "event_loop: %s\n", kist_last_error()->what);
            exit(2);
        }
    }
}

/* An answer came: hand it in. Had the page been invalidated since it was asked
 * for, KIST_CHANGED would say so, and whoever needs it asks again. */
static void take_answer(struct loop *l)
{
    static struct answer a;
    ssize_t n = recv(l->socket, &a, sizeof a, 0);
    int rc;

    if (n != sizeof a)
        die("recv");
    rc = kist_pages_supply(l->pages, a.about.addr, a.bytes, a.len, a.about.ticket);
    if (rc != KIST_OK && rc != KIST_CHANGED)
        die("supply");
    for (size_t i = 0; i < l->count; i++)
        if (l->in_flight[i] == a.about.addr) {
            l->in_flight[i] = l->in_flight[--l->count];
            break;
        }
    l->answers++;
    for (int i = 0; i < TASKS; i++)
        l->tasks[i].waits = false; /* whose page it was not asks again, and waits */
}

static uint64_t run_all(struct loop *l)
{
    uint64_t sum = 0;

    for (;;) {
        struct pollfd ready = { .fd = l->socket, .events = POLLIN };
        bool left = false;

        for (int i = 0; i < TASKS; i++) {
            run(l, &l->tasks[i]);
            left |= l->tasks[i].at < l->tasks[i].end;
        }
        if (!left)
            break;
        if (poll(&ready, 1, -1) < 0 && errno != EINTR)
            die("poll");
        if (ready.revents != 0)
            take_answer(l);
    }
    for (int i = 0; i < TASKS; i++)
        sum += l->tasks[i].sum;
    return sum;
}

int main(int argc, char **argv)
{
    kist_device far_away = { .size = sizeof far_away }; /* nothing to ask */
    kist_pages_options opt = { .size = sizeof opt, .page_bytes = PAGE, .cache_pages = 256 };
    static struct loop l;
    struct stat st;
    pid_t child;
    int fd, ends[2];

    if (argc != 2)
        return fputs("usage: event_loop FILE\n", stderr), 2;
    fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) < 0)
        die(argv[1]);
    child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        (void)close(ends[0]);
        serve(fd, ends[1]);
    }
    (void)close(ends[1]);
    l.socket = ends[0];
    if (kist_pages_open(&l.pages, &far_away, &opt) != KIST_OK)
        return fprintf(stderr, "event_loop: %s\n", kist_last_error()->what), 2;
    for (uint64_t i = 0, numbers = (uint64_t)st.st_size / 8; i < TASKS; i++)
        l.tasks[i] =
            (struct task){ .at = numbers * i / TASKS * 8, .end = numbers * (i + 1) / TASKS * 8 };
    printf("sum %" PRIu64, run_all(&l));
    printf(", %" PRIu64 " pages fetched, up to %" PRIu64 " at once\n", l.answers, l.longest_queue);
    kist_pages_close(l.pages);
    return 0;
}
