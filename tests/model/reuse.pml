/*
 * reuse.pml - index space that is used again (I4, H5, O6).
 *
 * Three nodes, one of which the root leads to. A writer builds a new node in one that
 * is free, has the root lead there, and puts the old one into quarantine. When it has
 * no free node it releases what is in quarantine: the counter grows first. Where it
 * has none there either, or where another writer has looked around since, it looks
 * around itself: whatever the root does not lead to is free, by the same rule, and
 * lists of others are void. Writers follow each other, by turns or by death. Readers
 * without a lock return what they found in a node only if the counter did not move.
 *
 *     root ---> node: two words, both the version that was built there
 *
 *     writer  Q1 are my lists void?   Q2 tell that those of others are   Q3 bump the counter
 *             Q4 fence                Q5 fill the node                   Q6 publish it
 *             Q7 quarantine for the old one
 *     reader  R1 counter  R2 root  R3 node  R4 acquire fence  R5 the counter again
 *
 * Mistakes: REUSE_WITHOUT_COUNTER, COUNTER_AFTER_FILL, COUNTER_READ_ONCE, COUNTER_READ_LATE,
 * COUNTER_READ_UNFENCED, FILL_UNORDERED, LISTS_OF_OTHERS
 */
#define NODES 3
#define NODE(n, half) (2 * (n) + (half))
#define ROOT (2 * NODES)
#define CHANGE (2 * NODES + 1)
#define WORDS (2 * NODES + 2)
#define STORES 8
#define THREADS 3
#include "memory.pml"

/* The root's value: which node, and, for checking alone, which version is in it. */
#define LEADS(version, node) ((version) * NODES + (node))
#define BIT(n) (1 << (n))
#define ALL (BIT(NODES) - 1)

lock_word lock; /* 0, or 1 + the holder; how it is handed over is left to handover.pml */
byte walks = 1; /* this and the version are for the lock's holder alone */
byte version;   /* of the node that was built last */
bool dead[2];
byte ended; /* writers */

/* One of the two, anywhere under the lock. */
#define MAY_DIE                                                                                    \
    if                                                                                             \
    :: !dead[1 - me] -> goto killed                                                                \
    :: true                                                                                        \
    fi

inline take_lock()
{
    d_step {
        lock.value == 0 || dead[lock.value - 1] ->
        if
        :: lock.value > 0 -> LEARN_OF_DEAD(lock.value - 1)
        :: else
        fi;
        LEARN(th[me].now, lock.seen);
        lock.value = me + 1
    }
}
inline leave_lock()
{
    d_step {
        COPY(lock.seen, th[me].now);
        lock.value = 0
    }
}

inline fill(node, with)
{
#ifdef FILL_UNORDERED
    STORE(NODE(node, 0), with);
    MAY_DIE;
    STORE(NODE(node, 1), with)
#else
    PUBLISH(NODE(node, 0), with);
    MAY_DIE;
    PUBLISH(NODE(node, 1), with)
#endif
}

/* Have a free node, or several; from here on they may be written. */
inline release()
{
    if
    :: retired > 0 -> free = retired
    :: else ->
Q2:     walks++;
        MAY_DIE;
        mine = walks;
        free = ALL & ~BIT(root % NODES)
    fi;
    retired = 0;
#ifndef REUSE_WITHOUT_COUNTER
#ifndef COUNTER_AFTER_FILL
Q3: ADD(CHANGE, 1);
    MAY_DIE;
#endif
#endif
#ifndef FILL_UNORDERED
Q4: FENCE()
#endif
}

inline build()
{
    PEEK(ROOT, root);
#ifndef LISTS_OF_OTHERS
Q1: d_step {
        if
        :: walks != mine ->
            free = 0;
            retired = 0;
            mine = walks
        :: else
        fi
    };
#endif
    if
    :: free == 0 -> release()
    :: else
    fi;
    if
    :: free & BIT(0) -> node = 0
    :: free & BIT(1) -> node = 1
    :: free & BIT(2) -> node = 2
    fi;
    d_step {
        free = free & ~BIT(node);
        version++
    };
Q5: fill(node, version);
    MAY_DIE;
#ifdef COUNTER_AFTER_FILL
    ADD(CHANGE, 1);
#endif
Q6: PUBLISH(ROOT, LEADS(version, node));
    MAY_DIE;
Q7: retired = retired | BIT(root % NODES)
}

proctype writer(byte who, builds)
{
    THREAD(who);
    byte mine, free, retired, root, node;

    do
    :: builds > 0 ->
        take_lock();
        build();
        leave_lock();
        builds--
    :: else -> break
    od;
    goto gone;
killed:
    dead[me] = true;
gone:
    atomic {
        ended++;
        builds = 0;
        mine = 0;
        free = 0;
        retired = 0;
        root = 0;
        node = 0
    }
}

proctype reader()
{
    THREAD(2);
    byte before, after, root, a, b;

    ended == 2;
#ifdef COUNTER_READ_LATE
R1: READ(ROOT, root);
    READ(CHANGE, before);
#else
R1: READ(CHANGE, before);
R2: READ(ROOT, root);
#endif
R3: PEEK(NODE(root % NODES, 0), a);
    READ(NODE(root % NODES, 1), b);
#ifndef COUNTER_READ_UNFENCED
R4: ACQUIRE();
#endif
#ifdef COUNTER_READ_ONCE
    after = before;
#else
R5: PEEK(CHANGE, after);
#endif
    if
    :: after == before ->
        assert(a == root / NODES && b == root / NODES)
    :: else -> /* start over */
        d_step {
            before = 0;
            after = 0;
            root = 0;
            a = 0;
            b = 0
        };
        goto R1
    fi
}

init {
    atomic {
        run writer(0, 3);
        run writer(1, 2);
        run reader()
    }
}
