/*
 * memory.pml - shared words as C11 has them, for the models beside it.
 *
 * A word is the list of the values that were stored to it, oldest first. Each
 * thread knows up to where it has seen each list (`now`); a load takes any value
 * from there on, so it may be an old one, for as long as nothing has told the
 * thread of a newer. What a release store knew goes with its value (`seen`), and
 * an acquire load takes it over. A fence of sequential consistency is a meeting
 * point: whoever passes it later knows all that those before it knew.
 *
 *     in C              here
 *     shm_publish       PUBLISH    release store
 *     shm_store         STORE      relaxed store
 *     shm_read          READ       acquire load
 *     shm_peek          PEEK       relaxed load
 *     shm_add           ADD        acquire and release
 *     fence(acquire)    ACQUIRE
 *     shm_fence         FENCE      sequentially consistent
 *
 * All that x86 does is among this (a store that still waits in its buffer is a
 * value that others do not see yet, and before FENCE need not), and what ARM does,
 * but for one thing: no load comes later than a store behind it. Readers of kist
 * store nothing, so none of theirs can.
 *
 * Whoever stores nothing, and passes no FENCE, may as well begin when all others have
 * ended: nothing keeps it from the old values, and no other order of its loads among
 * their stores gives it anything else. So readers do, which saves most of the states.
 *
 * A model defines WORDS, STORES (to one word, at most; with what it starts from) and
 * THREADS before it includes this, and each proctype says THREAD(its number).
 */
typedef message {
    byte value;
    byte seen[WORDS]
};
typedef word {
    byte last; /* the newest */
    message m[STORES]
};
typedef thread {
    byte now[WORDS];   /* the oldest value of each word that it may still load */
    byte met[WORDS];   /* what relaxed loads have come across: ACQUIRE takes it over */
#ifndef NO_RELAXED_STORES
    byte fenced[WORDS] /* `now` at the last fence: relaxed stores tell of that */
#endif
};

word mem[WORDS];
thread th[THREADS];
byte fences[WORDS]; /* what was known at the last FENCE of all threads */
hidden byte q_, old_;

#define THREAD(n)                                                                                  \
    byte me = n;                                                                                   \
    byte pick_ = 0

#define LEARN(to, from)                                                                            \
    for (q_ : 0 .. WORDS - 1) {                                                                    \
        if                                                                                         \
        :: from[q_] > to[q_] -> to[q_] = from[q_]                                                  \
        :: else                                                                                    \
        fi                                                                                         \
    }
#define COPY(to, from)                                                                             \
    for (q_ : 0 .. WORDS - 1) {                                                                    \
        to[q_] = from[q_]                                                                          \
    }
#define NOTHING(of)                                                                                \
    for (q_ : 0 .. WORDS - 1) {                                                                    \
        of[q_] = 0                                                                                 \
    }

/* What a word holds before anything happens; in init. */
#define START(w, v) mem[w].m[0].value = v

inline append_(w, v)
{
    mem[w].last++;
    assert(mem[w].last < STORES);
    mem[w].m[mem[w].last].value = v;
    th[me].now[w] = mem[w].last
}
inline PUBLISH(w, v)
{
    d_step {
        append_(w, v);
        COPY(mem[w].m[mem[w].last].seen, th[me].now)
    }
}
#ifndef NO_RELAXED_STORES
inline STORE(w, v)
{
    d_step {
        append_(w, v);
        COPY(mem[w].m[mem[w].last].seen, th[me].fenced);
        mem[w].m[mem[w].last].seen[w] = mem[w].last
    }
}
#endif
inline pick_one_(w, out)
{
    select(pick_ : th[me].now[w] .. mem[w].last);
    out = mem[w].m[pick_].value
}
inline READ(w, out)
{
    atomic {
        pick_one_(w, out);
        d_step {
            th[me].now[w] = pick_;
            LEARN(th[me].now, mem[w].m[pick_].seen);
            pick_ = 0
        }
    }
}
inline PEEK(w, out)
{
    atomic {
        pick_one_(w, out);
        d_step {
            th[me].now[w] = pick_;
            LEARN(th[me].met, mem[w].m[pick_].seen);
            pick_ = 0
        }
    }
}
inline ADD(w, n)
{
    d_step {
        LEARN(th[me].now, mem[w].m[mem[w].last].seen);
        old_ = mem[w].m[mem[w].last].value;
        append_(w, old_ + n);
        COPY(mem[w].m[mem[w].last].seen, th[me].now)
    }
}
inline ACQUIRE()
{
    d_step {
        LEARN(th[me].now, th[me].met);
        NOTHING(th[me].met)
    }
}
inline FENCE()
{
    d_step {
        LEARN(th[me].now, th[me].met);
        NOTHING(th[me].met);
        LEARN(th[me].now, fences);
        COPY(fences, th[me].now);
#ifndef NO_RELAXED_STORES
        COPY(th[me].fenced, th[me].now)
#endif
    }
}

/* Of one who is dead everything is seen by whoever the kernel tells so. */
#define LEARN_OF_DEAD(who) LEARN(th[me].now, th[who].now)

/* A lock word: only exchanged, so that its newest value is all there is of it. */
typedef lock_word {
    byte value;
    byte seen[WORDS]
};
inline CAS(lock, expected, v, done)
{
    d_step {
        if
        :: lock.value == expected ->
            LEARN(th[me].now, lock.seen);
            COPY(lock.seen, th[me].now);
            lock.value = v;
            done = true
        :: else ->
            done = false
        fi
    }
}
