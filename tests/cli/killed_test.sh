#!/bin/sh
# A bank whose writer died while it replaced the content: what lists it says so, and
# what writes to it finishes that.
. "$(dirname "$0")/lib.sh"

: "${KILLED:?set KILLED to the program that dies}"

for kind in hash ordered; do
    if [ $kind = ordered ]; then run create s $kind --ordered; else run create s $kind; fi
    run put s $kind key value
    run put s $kind other value

    t who lists the bank is told that a writer died, $kind
    "$KILLED" s $kind 2>io/err
    got=$?
    status 137
    for verb in ls dump save; do
        if [ $verb = save ]; then
            run snapshot save s $kind file --deadline=10
        else
            run $verb s $kind --deadline=10
        fi
        status 3
        err "a writer died while it replaced the content; the next write finishes that, or 'kist compact'"
        check [ ! -s io/out ]
        check [ ! -e file ]
    done
    run get s $kind key
    status 1
    run ls s
    status 0

    t the next write finishes what was begun, $kind
    run compact s $kind -q
    status 0
    run ls s $kind
    status 0
    out ''
    run put s $kind new value
    status 0
    run ls s $kind
    out new
    run verify s $kind -q
    status 0
done

finish
