/*
 * shm - the only ways by which kist stores into memory that other processes
 * see. Plain stores in a normal build; with KIST_SEAM each calls a hook after
 * it, by which tests log, kill or stop a writer at every single store (I1).
 *
 * Memory orders, and who pairs with whom:
 *   shm_publish   release  with shm_read: what was stored before is seen
 *   shm_store     relaxed  ordered by a later publish, or by the bank's lock
 *   shm_cas, shm_swap  acquire-release, for locks
 *   shm_copy, shm_zero relaxed in effect: for bytes nothing leads to yet
 */
#ifndef KIST_BASE_SHM_H
#define KIST_BASE_SHM_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The thread sanitizer sees loads of what others store, though no value is used; and
 * knows nothing of fences. */
#if defined(__SANITIZE_THREAD__)
#define SHM_RACES_ARE_SEEN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SHM_RACES_ARE_SEEN 1
#endif
#endif

typedef _Atomic uint64_t shm_word;
static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "words are shared between processes");
static_assert(sizeof(shm_word) == 8, "a word is eight bytes in every file");

#ifdef KIST_SEAM
/* Called after each store to shared memory; NULL: nothing. */
extern void (*shm_seam)(const void *addr, size_t len);
static inline void shm_told(const void *addr, size_t len)
{
    if (shm_seam)
        shm_seam(addr, len);
}
#else
static inline void shm_told(const void *addr, size_t len)
{
    (void)addr, (void)len;
}
#endif

static inline uint64_t shm_read(const shm_word *w)
{
    return atomic_load_explicit(w, memory_order_acquire);
}

static inline uint64_t shm_peek(const shm_word *w)
{
    return atomic_load_explicit(w, memory_order_relaxed);
}

static inline void shm_publish(shm_word *w, uint64_t v)
{
    atomic_store_explicit(w, v, memory_order_release);
    shm_told((const void *)w, sizeof *w);
}

static inline void shm_store(shm_word *w, uint64_t v)
{
    atomic_store_explicit(w, v, memory_order_relaxed);
    shm_told((const void *)w, sizeof *w);
}

static inline bool shm_cas(shm_word *w, uint64_t *expected, uint64_t v)
{
    bool done = atomic_compare_exchange_strong_explicit(w, expected, v, memory_order_acq_rel,
                                                        memory_order_acquire);
    if (done)
        shm_told((const void *)w, sizeof *w);
    return done;
}

static inline uint64_t shm_swap(shm_word *w, uint64_t v)
{
    uint64_t old = atomic_exchange_explicit(w, v, memory_order_acq_rel);

    shm_told((const void *)w, sizeof *w);
    return old;
}

/* Returns the value after the addition. */
static inline uint64_t shm_add(shm_word *w, uint64_t n)
{
    uint64_t now = atomic_fetch_add_explicit(w, n, memory_order_acq_rel) + n;

    shm_told((const void *)w, sizeof *w);
    return now;
}

#ifdef KIST_SEAM
/* In pieces, so that a test can stop a writer in the middle of a copy: of 64
 * bytes each, or 1/64 of the whole when that is more. */
static inline size_t shm_piece(size_t left, size_t whole)
{
    size_t piece = whole / 64 > 64 ? whole / 64 : 64;

    return left < piece ? left : piece;
}

static inline void shm_copy(void *to, const void *from, size_t len)
{
    for (size_t at = 0, n; at < len; at += n) {
        n = shm_piece(len - at, len);
        memcpy((char *)to + at, (const char *)from + at, n);
        shm_told((char *)to + at, n);
    }
}

static inline void shm_zero(void *to, size_t len)
{
    for (size_t at = 0, n; at < len; at += n) {
        n = shm_piece(len - at, len);
        memset((char *)to + at, 0, n);
        shm_told((char *)to + at, n);
    }
}
#else
static inline void shm_copy(void *to, const void *from, size_t len)
{
    memcpy(to, from, len);
}

static inline void shm_zero(void *to, size_t len)
{
    memset(to, 0, len);
}
#endif

/* Load what is at p, which is mapped, and let nobody wait for it. */
static inline void shm_touch(const void *p)
{
#ifdef SHM_RACES_ARE_SEEN
    (void)p;
#else
    (void)*(const volatile uint8_t *)p;
#endif
}

/* Make stores before it visible before stores after it; with shm_store. */
static inline void shm_fence(void)
{
    atomic_thread_fence(memory_order_seq_cst);
}

#endif
