#!/bin/sh
# A bank whose writer died while it replaced the content: what lists it waits for nobody,
# and what writes to it finishes that.
. "$(dirname "$0")/lib.sh"

: "${KILLED:?set KILLED to the program that dies}"

for kind in hash ordered; do
    if [ $kind = ordered ]; then run create s $kind --ordered; else run create s $kind; fi
    run put s $kind key value
    run put s $kind other value

    t who lists the bank sees what came of it, $kind
    "$KILLED" s $kind 2>io/err
    got=$?
    status 137
    for verb in ls dump; do
        run $verb s $kind --deadline=10
        status 0
        check [ "$(grep -c value io/out)" = 0 ]
    done
    run snapshot save s $kind $kind.file --deadline=10
    status 0
    run snapshot info $kind.file
    check grep -Eq '^entries +0$' io/out
    run get s $kind key
    status 1

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
