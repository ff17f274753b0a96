/* A bar on the terminal for what takes long. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *what; /* "loading"                                         */
    bool wanted;      /* standard error is a terminal, and nobody said no  */
    bool shown;       /* the bar stands on the terminal now                */
    uint64_t start_ns;
    uint64_t drawn_ns; /* when it was drawn last                            */
};

/* Begin; the bar appears once a second has passed. One at a time. */
void progress_start(struct progress *p, const char *what, bool quiet);

/* So much is done. Cheap enough to be called at every entry. */
void progress_update(struct progress *p, uint64_t done, uint64_t all);

/* The same in the form that kist's long calls want; arg: struct progress. */
int progress_call(uint64_t done, uint64_t all, void *arg);

/* Wipe the bar, if one stands; done, or before something else is printed. */
void progress_end(struct progress *p);
void progress_hide(void);

/* ns of a clock that only goes forward. */
uint64_t now_ns(void);

/* The bar's text for a terminal of `width` columns; returns its length. */
int progress_text(char *buf, int cap, const char *what, uint64_t done, uint64_t all,
                  uint64_t passed_ns, int width);

/* "12.3 MiB", for people. The result holds for the next seven calls. */
const char *human_bytes(uint64_t bytes);

/* "2026-01-31 12:00:00"; false: there is no saying. */
bool human_date(char buf[32], int64_t ns);

#endif
