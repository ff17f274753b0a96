/* thread.c - read sections, epochs, and the error context of each thread. */
#include "base/thread.h"

#include "base/memdir.h"
#include "base/os.h"
#include "base/shm.h"

#include <stddef.h>

_Thread_local struct thread *thread_cell __attribute__((tls_model("initial-exec")));
_Thread_local uint32_t thread_depth __attribute__((tls_model("initial-exec")));

/* The only state of the library outside of handles: it belongs to the
 * process's threads, as errno does. */
static struct {
    os_mutex lock; /* guards cells' list when it grows, `waiting`, `guarded`, `unforked`;
                      forks take it */
    _Atomic(struct thread *) cells;
    _Atomic uint64_t epoch;
    _Atomic uint64_t waiting_count;
    _Atomic int must_fence; /* 1: membarrier is refused here */
    struct retired *waiting;
    struct guarded *guarded;
    struct unforked *unforked;
    pthread_key_t key;
    bool works; /* the two that start() asks for are there */
} all = { .lock = OS_MUTEX_INIT, .epoch = 1 };

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void cell_free(struct thread *t)
{
    atomic_store_explicit(&t->epoch, 0, memory_order_release);
    atomic_store_explicit(&t->used, 0, memory_order_release);
}

/* ⚑ The cell is another thread's from here on; destructors that come later get
 * one of their own, for which this is called again. */
static void on_thread_exit(void *cell)
{
    thread_depth = 0;
    thread_cell = NULL;
    cell_free(cell);
}

void thread_hold_forks(void)
{
    (void)thread_self(); /* so that the fork handlers are there */
    os_mutex_lock(&all.lock);
}

void thread_allow_forks(void)
{
    os_mutex_unlock(&all.lock);
}

static void before_fork(void)
{
    os_mutex_lock(&all.lock);
    memdir_before_fork();
}

static void behind_fork(void)
{
    memdir_behind_fork();
    os_mutex_unlock(&all.lock);
}

/* E3: in a forked child only the thread that forked goes on. What waited
 * belongs to the parent's maps, which the child has too, and is released here
 * as well. */
static void on_fork_child(void)
{
    os_mutex_init(&all.lock);
    memdir_in_child();
    for (struct thread *t = atomic_load(&all.cells); t; t = t->next)
        if (t != thread_cell)
            cell_free(t);
    atomic_store(&all.must_fence, os_barrier() < 0);
    for (struct guarded *g = all.guarded; g; g = g->next) {
        (void)os_close(g->fd);
        g->fd = -1;
    }
    all.guarded = NULL;
    for (struct unforked *u = all.unforked; u; u = u->next)
        *u->map = NULL;
    all.unforked = NULL;
}

/* ⚑ Without handlers a forked child would hold its parent's locks, and without
 * the key a thread that ends its section: then there is no cell for anybody. */
static void start(void)
{
    all.works = pthread_key_create(&all.key, on_thread_exit) == 0 &&
                pthread_atfork(before_fork, behind_fork, on_fork_child) == 0;
    atomic_store(&all.must_fence, os_barrier() < 0);
}

static struct thread *cell_take(void)
{
    struct thread *t;
    uint32_t is_free = 0;

    for (t = atomic_load_explicit(&all.cells, memory_order_acquire); t; t = t->next) {
        is_free = 0;
        if (atomic_compare_exchange_strong(&t->used, &is_free, 1))
            return t;
    }
    t = os_alloc(sizeof *t);
    if (!t)
        return NULL;
    atomic_store(&t->used, 1);
    os_mutex_lock(&all.lock);
    t->next = atomic_load(&all.cells);
    atomic_store_explicit(&all.cells, t, memory_order_release); /* with reclaim's walk */
    os_mutex_unlock(&all.lock);
    return t;
}

struct thread *thread_self(void)
{
    if (!thread_cell) {
        (void)pthread_once(&once, start);
        thread_cell = all.works ? cell_take() : NULL;
        if (thread_cell && pthread_setspecific(all.key, thread_cell) != 0) {
            cell_free(thread_cell); /* nobody would, later */
            thread_cell = NULL;
        }
    }
    return thread_cell;
}

void thread_guard(struct guarded *g, int fd)
{
    *g = (struct guarded){ .next = all.guarded, .fd = fd };
    all.guarded = g;
}

void thread_guard_close(struct guarded *g)
{
    if (g->fd < 0)
        return;
    thread_hold_forks();
    for (struct guarded **at = &all.guarded; *at; at = &(*at)->next) {
        if (*at == g) {
            *at = g->next;
            break;
        }
    }
    (void)os_close(g->fd);
    g->fd = -1;
    thread_allow_forks();
}

void thread_unforked(struct unforked *u, void **map)
{
    *u = (struct unforked){ .next = all.unforked, .map = map };
    all.unforked = u;
}

void thread_unforked_end(struct unforked *u)
{
    for (struct unforked **at = &all.unforked; *at; at = &(*at)->next) {
        if (*at == u) {
            *at = u->next;
            break;
        }
    }
}

int kist_read_begin(void)
{
    struct thread *t = thread_cell;
    uint64_t now;

    if (thread_depth > 0) {
        thread_depth++;
        return KIST_OK;
    }
    if (!t && !(t = thread_self()))
        return KIST_ENOMEM;
    thread_depth = 1;
    now = atomic_load_explicit(&all.epoch, memory_order_acquire);
    atomic_store_explicit(&t->epoch, now, memory_order_relaxed);
    /* Pairs with the barrier in thread_reclaim(): the store above is seen
     * there, or the section's loads see what was made unreachable (E1). */
    if (atomic_load_explicit(&all.must_fence, memory_order_relaxed))
        atomic_thread_fence(memory_order_seq_cst);
    else
        atomic_signal_fence(memory_order_seq_cst);
    return KIST_OK;
}

void kist_read_end(void)
{
    if (thread_depth == 0 || --thread_depth > 0)
        return;
    /* release: pairs with the acquire in oldest_section() */
    atomic_store_explicit(&thread_cell->epoch, 0, memory_order_release);
}

/* The epoch of the oldest open section, or UINT64_MAX. */
static uint64_t oldest_section(void)
{
    uint64_t oldest = UINT64_MAX;

    for (struct thread *t = atomic_load_explicit(&all.cells, memory_order_acquire); t;
         t = t->next) {
        uint64_t e = atomic_load_explicit(&t->epoch, memory_order_acquire);

        if (e != 0 && e < oldest)
            oldest = e;
    }
    return oldest;
}

void thread_retire(struct retired *r, void (*release)(struct retired *))
{
    r->release = release;
    /* Sections that begin from here on carry a later epoch, and can't reach
     * it any more (E1). */
    r->epoch = atomic_fetch_add_explicit(&all.epoch, 1, memory_order_acq_rel);
    os_mutex_lock(&all.lock);
    r->next = all.waiting;
    all.waiting = r;
    atomic_fetch_add_explicit(&all.waiting_count, 1, memory_order_relaxed);
    os_mutex_unlock(&all.lock);
    thread_reclaim();
}

void thread_reclaim(void)
{
    struct retired *done = NULL, *next;
    uint64_t oldest;

    if (atomic_load_explicit(&all.waiting_count, memory_order_relaxed) == 0)
        return;
    if (atomic_load_explicit(&all.must_fence, memory_order_relaxed))
        atomic_thread_fence(memory_order_seq_cst);
    else if (os_barrier() < 0)
        return; /* not proven: later */

    os_mutex_lock(&all.lock);
    oldest = oldest_section();
    for (struct retired **at = &all.waiting; *at;) {
        struct retired *r = *at;

        if (r->epoch < oldest) {
            *at = r->next;
            r->next = done;
            done = r;
            atomic_fetch_sub_explicit(&all.waiting_count, 1, memory_order_relaxed);
        } else {
            at = &r->next;
        }
    }
    os_mutex_unlock(&all.lock);
    for (; done; done = next) {
        next = done->next;
        done->release(done);
    }
}
