/*
 * A bar on the terminal for what takes over a second, with rate and time
 * left. It is drawn on standard error, at most ten times a second, and only
 * there: without a terminal nothing is ever printed.
 */
#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { SECOND_NS = 1000000000, DRAW_EVERY_NS = SECOND_NS / 10 };

static struct progress *current;

uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

const char *human_bytes(uint64_t bytes)
{
    static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    static char ring[8][32];
    static unsigned next;
    char *buf = ring[next++ % 8];
    double value = (double)bytes / 1024;
    size_t unit = 0;

    if (bytes < 1024) {
        (void)snprintf(buf, sizeof ring[0], "%u bytes", (unsigned)bytes);
        return buf;
    }
    while (value >= 1023.95 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(buf, sizeof ring[0], "%.1f %s", value, units[unit]);
    return buf;
}

bool human_date(char buf[32], int64_t ns)
{
    time_t seconds = ns / SECOND_NS;
    struct tm tm;

    return localtime_r(&seconds, &tm) != NULL && strftime(buf, 32, "%Y-%m-%d %H:%M:%S", &tm) != 0;
}

/* "left 2:05", or nothing while there is no telling. */
static void text_left(char *buf, size_t cap, uint64_t done, uint64_t all, double per_ns)
{
    double seconds;

    buf[0] = '\0';
    if (per_ns <= 0 || done > all)
        return;
    seconds = (double)(all - done) / per_ns / SECOND_NS;
    if (seconds < 360000)
        (void)snprintf(buf, cap, ", left %u:%02u", (unsigned)seconds / 60, (unsigned)seconds % 60);
}

int progress_text(char *buf, int cap, const char *what, uint64_t done, uint64_t all,
                  uint64_t passed_ns, int width)
{
    double per_ns = passed_ns > 0 ? (double)done / (double)passed_ns : 0;
    double share = all > 0 ? (double)done / (double)all : 0;
    char left[32], tail[160], bar[41];
    int room, filled;

    if (share > 1)
        share = 1;
    text_left(left, sizeof left, done, all, per_ns);
    (void)snprintf(tail, sizeof tail, "%3d%%  %s of %s, %s/s%s", (int)(share * 100),
                   human_bytes(done), human_bytes(all), human_bytes((uint64_t)(per_ns * SECOND_NS)),
                   left);
    if (width > cap)
        width = cap;
    room = width - 1 - (int)strlen(what) - (int)strlen(tail) - 5;
    if (room < 5)
        return snprintf(buf, (size_t)width, "%s %s", what, tail);
    if (room > (int)sizeof bar - 1)
        room = (int)sizeof bar - 1;
    filled = (int)(share * room);
    memset(bar, '.', (size_t)room);
    memset(bar, '#', (size_t)filled);
    bar[room] = '\0';
    return snprintf(buf, (size_t)cap, "%s [%s] %s", what, bar, tail);
}

void progress_start(struct progress *p, const char *what, bool quiet)
{
    *p = (struct progress){
        .what = what,
        .wanted = !quiet && isatty(STDERR_FILENO),
        .start_ns = now_ns(),
    };
    current = p;
}

static int terminal_width(void)
{
    struct winsize size;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20)
        return size.ws_col;
    return 80;
}

void progress_update(struct progress *p, uint64_t done, uint64_t all)
{
    char text[256];
    uint64_t now;

    if (!p->wanted)
        return;
    now = now_ns();
    if (now - p->start_ns < SECOND_NS || now - p->drawn_ns < DRAW_EVERY_NS)
        return;
    (void)progress_text(text, (int)sizeof text, p->what, done, all, now - p->start_ns,
                        terminal_width());
    (void)fprintf(stderr, "\r%s\033[K", text);
    (void)fflush(stderr);
    p->drawn_ns = now;
    p->shown = true;
}

int progress_call(uint64_t done, uint64_t all, void *arg)
{
    progress_update(arg, done, all);
    return 0;
}

void progress_hide(void)
{
    if (current == NULL || !current->shown)
        return;
    (void)fputs("\r\033[K", stderr);
    (void)fflush(stderr);
    current->shown = false;
}

void progress_end(struct progress *p)
{
    progress_hide();
    if (current == p)
        current = NULL;
}
