/*
 * publish.pml - what is led to is complete (I1, H3, O5).
 *
 * One key. A writer puts its record: into an entry of a leaf, which the leaf's order
 * has from then on, or over the slot of the entry that has it; then it splits the
 * leaf, that is, builds another one, and has the child word lead there. It may be
 * killed anywhere; a second writer goes on from what it finds. A reader gets the key
 * again and again: what it meets is whole, and never older than what it met before.
 *
 *     child ---> leaf 0: order ---> entry: head, slot ---> record: two words
 *          \---> leaf 1: the same
 *
 * A hash index is a part of that: directory entry, slot, record.
 *
 *     writer  P1 fill the record       P2 publish it in a slot that leads elsewhere
 *             P3 fill an entry         P4 publish the order that has it
 *             P5 fill a node           P6 publish the word that leads to it
 *     reader  G1 child  G2 order  G3 entry  G4 record
 *
 * Mistakes: PUBLISH_BEFORE_FILL, ORDER_BEFORE_ENTRY, CHILD_BEFORE_NODE, PUBLISH_RELAXED, FOLLOW_RELAXED
 */
#define PUTS 3
#define RECORD(n, half) (2 * ((n) - 1) + (half))
#define HEAD(leaf, entry) (2 * PUTS + 5 * (leaf) + (entry))
#define SLOT(leaf, entry) (2 * PUTS + 5 * (leaf) + 2 + (entry))
#define ORDER(leaf) (2 * PUTS + 5 * (leaf) + 4) /* 0, or 1 + the entry that is in it */
#define CHILD (2 * PUTS + 10)
#define WORDS (2 * PUTS + 11)
#define STORES 4
#define THREADS 3
#include "memory.pml"

#define KEY 7

#ifdef PUBLISH_RELAXED
#define LEAD(w, v) STORE(w, v)
#else
#define LEAD(w, v) PUBLISH(w, v)
#endif
#ifdef FOLLOW_RELAXED
#define FOLLOW(w, out) PEEK(w, out)
#else
#define FOLLOW(w, out) READ(w, out)
#endif

byte ended; /* writers, the first one dead or not */

#define MAY_DIE                                                                                    \
    if                                                                                             \
    :: me == 0 -> goto gone                                                                        \
    :: true                                                                                        \
    fi

inline fill_record(n)
{
    STORE(RECORD(n, 0), n);
    MAY_DIE;
    STORE(RECORD(n, 1), n);
    MAY_DIE
}

inline fill_entry(leaf, entry, n)
{
    PUBLISH(HEAD(leaf, entry), KEY);
    MAY_DIE;
    PUBLISH(SLOT(leaf, entry), n);
    MAY_DIE
}

inline put(n)
{
    READ(CHILD, leaf);
    READ(ORDER(leaf), order);
#ifndef PUBLISH_BEFORE_FILL
P1: fill_record(n);
#endif
    if
    :: order > 0 ->
P2:     LEAD(SLOT(leaf, order - 1), n);
        MAY_DIE
    :: else -> /* an entry is free while its slot is 0 (O4) */
        entry = 0;
        PEEK(SLOT(leaf, 0), slot);
        if
        :: slot > 0 -> entry = 1
        :: else
        fi;
#ifdef ORDER_BEFORE_ENTRY
        LEAD(ORDER(leaf), entry + 1);
        MAY_DIE;
        fill_entry(leaf, entry, n)
#else
P3:     fill_entry(leaf, entry, n);
P4:     LEAD(ORDER(leaf), entry + 1);
        MAY_DIE
#endif
    fi;
#ifdef PUBLISH_BEFORE_FILL
P1: fill_record(n);
#endif
}

inline fill_node(n)
{
    PUBLISH(HEAD(1, 0), KEY);
    MAY_DIE;
    PUBLISH(SLOT(1, 0), n);
    MAY_DIE;
    PUBLISH(ORDER(1), 1);
    MAY_DIE
}

inline split()
{
    READ(ORDER(0), order);
    READ(SLOT(0, order - 1), slot);
#ifdef CHILD_BEFORE_NODE
    LEAD(CHILD, 1);
    MAY_DIE;
    fill_node(slot)
#else
P5: fill_node(slot);
P6: LEAD(CHILD, 1)
#endif
}

proctype writer(byte who, from, to)
{
    THREAD(who);
    byte n, leaf, order, entry, slot;

    ended == me; /* one after the other: what the lock is for */
    d_step {
        LEARN_OF_DEAD(0);
        n = from
    };
    do
    :: n <= to ->
        put(n);
        n++
    :: else -> break
    od;
    READ(CHILD, leaf);
    if
    :: leaf == 0 -> split()
    :: else
    fi;
gone:
    ended++
}

proctype reader()
{
    THREAD(2);
    byte round, found, leaf, order, head, slot, a, b;

    ended == 2;
    do
    :: round < 3 ->
G1:     FOLLOW(CHILD, leaf);
G2:     FOLLOW(ORDER(leaf), order);
        if
        :: order == 0 ->
            assert(found == 0) /* else it is lost */
        :: else ->
G3:         PEEK(HEAD(leaf, order - 1), head);
            assert(head == KEY);
            FOLLOW(SLOT(leaf, order - 1), slot);
            assert(slot > 0);
G4:         PEEK(RECORD(slot, 0), a);
            PEEK(RECORD(slot, 1), b);
            assert(a == slot && b == slot);
            assert(slot >= found);
            found = slot
        fi;
        round++
    :: else -> break
    od
}

init {
    atomic {
        run writer(0, 1, 2);
        run writer(1, 3, 3);
        run reader()
    }
}
