/*
 * pin.pml - history that a snapshot needs stays (the pins of I3).
 *
 * A bank of one key: its record of sequence n is alone in segment n, which is empty
 * from sequence n + 1 on. So a snapshot at S needs segment S, and a segment n may go
 * when every pin is above n. A pin is a lock on a byte: the kernel knows at once who
 * holds which. Two processes take snapshots; one of them takes a second one while it
 * has the first, under the same pin, and moves the pin when it lets the first one go. A
 * reader without a pin gathers what it needs and looks at the horizon then. A cleaner
 * unlinks; it may be killed anywhere, and another one goes on.
 *
 * The kernel's calls are taken to order nothing here but themselves: the fences do.
 *
 *     taker    T1 read the sequence S    T2 lock byte S            T3 fence
 *              T4 read the horizon; start over if it passed S      T5 move the pin
 *     cleaner  C1 publish the new horizon  C2 fence
 *              C3 ask for a pin below it, and again below each that is found
 *              C4 set the horizon back     C5 unlink what no pin needs
 *     scan     U1 read the sequence S    U2 gather at S            U3 fence
 *              U4 read the horizon; start over if it passed S
 *
 * Mistakes: PIN_WITHOUT_SECOND_LOOK, PIN_UNFENCED, PIN_MOVED_LATE, ASK_BEFORE_HORIZON,
 * ASK_UNFENCED, ASK_ONCE, HORIZON_BACK_TOO_FAR, UNLINK_PINNED, SCAN_WITHOUT_LOOK, SCAN_UNFENCED
 */
#define SEQUENCES 3 /* 0 to 2 */
#define NONE SEQUENCES
#define HORIZON 0
#define WORDS 1
#define STORES 10
#define THREADS 5
#define NO_RELAXED_STORES
#include "memory.pml"

byte pins[SEQUENCES];   /* how many hold a lock on the byte */
byte needed[SEQUENCES]; /* snapshots that were taken, and are held */
bool gone[SEQUENCES];   /* unlinked segments */
bool dead, done;        /* the first cleaner */

#define MAY_DIE                                                                                    \
    if                                                                                             \
    :: me == 1 ->                                                                                  \
        dead = true;                                                                               \
        goto killed                                                                                \
    :: true                                                                                        \
    fi

/* One question: any lock below `upto` may be the answer, not the lowest. */
inline ask(upto, found)
{
    atomic {
        if
        :: upto > 0 && pins[0] > 0 -> found = 0
        :: upto > 1 && pins[1] > 0 -> found = 1
        :: else -> found = NONE
        fi
    }
}

/* Whoever is slow has read one that is long past. */
inline any_sequence(out, from)
{
    atomic {
        select(out : from .. SEQUENCES - 1)
    }
}

inline ask_for_lowest()
{
    low = upto;
    do
    :: true ->
        ask(low, found);
        if
        :: found == NONE -> break
        :: else -> low = found
        fi;
#ifdef ASK_ONCE
        break
#endif
    od
}

inline publish_horizon()
{
    if
    :: upto > old -> PUBLISH(HORIZON, upto)
    :: else
    fi;
    MAY_DIE
}

inline unlink_segments()
{
    n = 0;
    do
    :: n < low ->
        d_step {
            assert(needed[n] == 0); /* nor those before it */
            gone[n] = true;
            n++
        };
        MAY_DIE
    :: n >= low -> break
    od
}

proctype cleaner(byte who, rounds)
{
    THREAD(who);
    byte upto, old, low, found, n;

    d_step {
        me == 1 || dead || done ->
        LEARN_OF_DEAD(1)
    };
    do
    :: rounds > 0 ->
        any_sequence(upto, 1); /* of the last segment that was emptied */
        READ(HORIZON, old);
#ifdef ASK_BEFORE_HORIZON
        ask_for_lowest();
        publish_horizon();
        FENCE();
#else
C1:     publish_horizon();
#ifndef ASK_UNFENCED
C2:     FENCE();
#endif
C3:     ask_for_lowest();
#endif
        MAY_DIE;
#ifndef HORIZON_BACK_TOO_FAR
        /* Not below where it was: what it passed then may be gone. */
C4:     if
        :: low < upto && upto > old ->
            if
            :: low > old -> PUBLISH(HORIZON, low)
            :: else -> PUBLISH(HORIZON, old)
            fi
        :: else
        fi;
#else
        if
        :: low < upto -> PUBLISH(HORIZON, low)
        :: else
        fi;
#endif
        MAY_DIE;
#ifdef UNLINK_PINNED
        low = upto;
#endif
C5:     unlink_segments();
        rounds--;
        d_step {
            upto = 0;
            old = 0;
            low = 0;
            found = 0;
            n = 0
        }
    :: else -> break
    od;
    if
    :: me == 1 -> done = true
    :: else
    fi;
killed:
    skip
}

inline take_snapshot()
{
    any_sequence(s, 0);
T2: pins[s]++;
#ifndef PIN_UNFENCED
T3: FENCE();
#endif
T4: atomic {
#ifndef PIN_WITHOUT_SECOND_LOOK
        READ(HORIZON, horizon);
#endif
        if
        :: horizon > s -> horizon = 0
        :: else ->
            needed[s]++;
            assert(!gone[s]);
            horizon = 0;
            goto taken
        fi
    };
    d_step {
        pins[s]--;
        s = 0
    };
    goto T1
}

proctype taker(byte who; bool again)
{
    THREAD(who);
    byte s, second, horizon;

T1: take_snapshot();
taken:
    if
    :: again ->
        any_sequence(second, s);
        d_step {
            needed[second]++;
            assert(!gone[second]);
            needed[s]--
        };
#ifdef PIN_MOVED_LATE
        pins[s]--;
        pins[second]++;
#else
T5:     pins[second]++;
        pins[s]--;
#endif
        d_step {
            s = second;
            second = 0
        }
    :: else
    fi;
    d_step {
        needed[s]--;
        pins[s]--;
        s = 0
    }
}

proctype scan()
{
    THREAD(4);
    byte s, horizon;
    bool found;

U1: any_sequence(s, 0);
U2: found = !gone[s];
#ifndef SCAN_UNFENCED
U3: FENCE();
#endif
#ifndef SCAN_WITHOUT_LOOK
U4: READ(HORIZON, horizon);
    if
    :: horizon > s ->
        d_step {
            s = 0;
            found = 0;
            horizon = 0
        };
        goto U1
    :: else
    fi;
#endif
    assert(found)
}

init {
    atomic {
        run cleaner(1, 1);
        run cleaner(2, 1);
        if
        :: run scan()
        :: run taker(3, true);
           run taker(4, false)
        fi
    }
}
