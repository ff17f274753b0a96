/*
 * handover.pml - one writer at a time, whoever dies (I8, L1, S2).
 *
 * Three writers put records of one key. The n-th record is at place n, so the state
 * that counts (how many there are) is its tail and its sequence as well; its second
 * word stands for the checksum. Two of the writers may be killed, each at any
 * instruction under the lock, one of them while it repairs what the other left; a
 * repair may also fail, say for want of memory. Then what was acknowledged is there,
 * no reader sees a torn state, and what it saw never goes back.
 *
 *     lock ---> 0, or 1 + a seat          heap: records; nothing, torn, or whole
 *     step ---> its parity: which of two copies of the state counts
 *     slot ---> the newest record
 *
 *     lock     L1 take the free word     L2 ask if the holder lives   L3 exchange the dead
 *              L4 leave it               L5 give it back              one's word for one's own
 *     put      W1 read the state         W2 write the record          W3 publish it
 *     repair   M1 whole records behind the tail are published again   M2 zero what is not
 *     step     S1 write the other copy   S2 raise the step
 *     reader   V1 the step               V2 the copy that it names    V3 the step again
 *
 * Mistakes: TAKE_OVER_WITHOUT_ASKING, TAKE_OVER_BY_STORE, STATE_OVER_THE_COPY_THAT_COUNTS,
 * STEP_BEFORE_STATE, STEP_BEFORE_SLOT, STATE_RELAXED, STATE_READ_ONCE, REPAIR_LEFT_OUT,
 * REPAIR_DOES_NOT_PUBLISH, REPAIR_LEAVES_THE_TORN, REPAIR_FAILED_LETS_GO
 */
#define STEP 0
#define STATE(copy, half) (1 + 2 * (copy) + (half))
#define SLOT 5
#define WORDS 6
#define STORES 12
#define WRITERS 3
#define THREADS (WRITERS + 1)
#include "memory.pml"

#define RECORDS 8
#define NONE 0
#define TORN 1
#define WHOLE 2

lock_word lock;
byte heap[RECORDS];     /* for writers alone; publish.pml has what readers see of a record */
byte acknowledged;      /* the newest one that a put has returned for */
bool inside[WRITERS];   /* who believes to hold the lock, and lives */
bool dead[WRITERS];
byte failed, ended;

#define ALONE assert(inside[0] + inside[1] + inside[2] == 1)

/* Between any two stores. The last writer lives on, to find out what is left. */
#define MAY_DIE                                                                                    \
    if                                                                                             \
    :: me < WRITERS - 1 -> goto killed                                                             \
    :: true                                                                                        \
    fi

#ifdef TAKE_OVER_WITHOUT_ASKING
#define GONE(seat) true
#else
#define GONE(seat) dead[seat]
#endif

inline take_lock()
{
    do
    :: atomic { /* a try that fails changes nothing */
        !mine && lock.value == 0 ->
L1:     CAS(lock, 0, me + 1, mine);
        inside[me] = mine }
    :: d_step { !mine && lock.value > 0 && GONE(lock.value - 1) -> held = lock.value } ->
L2:     d_step {
            LEARN_OF_DEAD(held - 1)
        };
#ifdef TAKE_OVER_BY_STORE
        lock.value = me + 1;
        mine = true;
#else
L3:     CAS(lock, held, me + 1, mine);
#endif
        inside[me] = mine;
#ifndef REPAIR_LEFT_OUT
        repairs = mine
#endif
    :: mine -> break
    od
}

inline forget()
{
    inside[me] = false;
    mine = false;
    held = 0;
    step = 0;
    n = 0;
    check = 0;
    slot = 0
}

inline leave_lock(to)
{
    d_step {
        LEARN(th[me].now, lock.seen);
        COPY(lock.seen, th[me].now);
        lock.value = to;
        forget()
    }
}

inline read_state()
{
    atomic { /* nobody else stores there now */
        PEEK(STEP, step);
        READ(STATE(step % 2, 0), n);
        READ(STATE(step % 2, 1), check)
    }
}

#ifdef STATE_RELAXED
#define TELL(w, v) STORE(w, v)
#else
#define TELL(w, v) PUBLISH(w, v)
#endif
#ifdef STATE_OVER_THE_COPY_THAT_COUNTS
#define OTHER (step % 2)
#define RAISED (step + 2)
#else
#define OTHER (1 - step % 2)
#define RAISED (step + 1)
#endif

inline write_state()
{
    TELL(STATE(OTHER, 0), n);
    MAY_DIE;
    TELL(STATE(OTHER, 1), n);
    MAY_DIE
}

inline publish_again()
{
    do
    :: heap[n + 1] == WHOLE ->
        n++;
        PEEK(SLOT, slot);
#ifndef REPAIR_DOES_NOT_PUBLISH
        if
        :: slot < n ->
M1:         PUBLISH(SLOT, n);
            MAY_DIE
        :: else
        fi
#endif
    :: heap[n + 1] != WHOLE -> break
    od;
#ifndef REPAIR_LEAVES_THE_TORN
M2: heap[n + 1] = NONE;
    MAY_DIE
#endif
}

proctype writer(byte who, puts)
{
    THREAD(who);
    byte held, step, n, check, slot;
    bool mine, repairs;

    do
    :: puts > 0 ->
        take_lock();
        MAY_DIE;
W1:     read_state();
        ALONE;
        assert(n == check);
        if
        :: repairs ->
            publish_again();
            if
            :: failed == 0 ->
                failed++;
#ifdef REPAIR_FAILED_LETS_GO
L5:             leave_lock(0);
#else
L5:             leave_lock(held);
#endif
                break
            :: true
            fi
        :: else ->
            PEEK(SLOT, slot);
            assert(slot == n && n >= acknowledged && heap[n + 1] == NONE);
            n++;
W2:         heap[n] = TORN;
            MAY_DIE;
            heap[n] = WHOLE;
            MAY_DIE;
#ifndef STEP_BEFORE_SLOT
W3:         PUBLISH(SLOT, n);
            MAY_DIE
#endif
        fi;
#ifdef STEP_BEFORE_STATE
        PUBLISH(STEP, RAISED);
        write_state();
#else
S1:     write_state();
S2:     PUBLISH(STEP, RAISED);
        MAY_DIE;
#endif
        ALONE;
        if
        :: repairs ->
            repairs = false;
            goto W1
        :: else
        fi;
#ifdef STEP_BEFORE_SLOT
        PUBLISH(SLOT, n);
        MAY_DIE;
#endif
        acknowledged = n;
        puts--;
L4:     leave_lock(0)
    :: else -> break
    od;
    goto gone;
killed:
    atomic {
        dead[me] = true;
        forget();
        repairs = false;
        puts = 0
    };
gone:
    ended++
}

/* A reader of the state (how many keys there are, say), and of the key. */
proctype reader()
{
    THREAD(WRITERS);
    byte before, after, a, b, slot, seen;

    ended == WRITERS;
V1: READ(STEP, before);
V2: READ(STATE(before % 2, 0), a);
    READ(STATE(before % 2, 1), b);
#ifdef STATE_READ_ONCE
    after = before;
#else
V3: READ(STEP, after);
#endif
    if
    :: after != before ->
        before = after;
        goto V2
    :: else
    fi;
    assert(a == b); /* else it says: damage */
    READ(SLOT, slot);
    assert(slot >= a && slot >= seen);
    seen = slot;
    d_step {
        before = 0;
        after = 0;
        a = 0;
        b = 0;
        slot = 0
    };
    if
    :: goto V1 /* and look again */
    :: true
    fi
}

init {
    atomic {
        run writer(0, 2);
        run writer(1, 1);
        run writer(2, 1);
        run reader()
    }
}
