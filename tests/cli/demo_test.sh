#!/bin/sh
# The demonstration, small: it ends well and leaves nothing behind.
. "$(dirname "$0")/lib.sh"
: "${KIST_DEMO:?set KIST_DEMO to the program kist-demo}"

mkdir files home
i=0
while [ $i -lt 200 ]; do
    i=$((i + 1))
    head -c $((i * 100)) /dev/urandom >files/$i
done
: >files/empty

t the demonstration finds no wrong byte
call='kist-demo'
TMPDIR=$tmp/home "$KIST_DEMO" files --kills=3 --seconds=0 >io/out 2>io/err
got=$?
status 0
check grep -Eq '^ +entries +201, of 201 files' io/out
check grep -Eq '^ +wrong bytes +0; values too old or too new 0, missing 0, errors 0$' io/out
check [ -z "$(ls home)" ]

t it says what is missing
TMPDIR=$tmp/home "$KIST_DEMO" home >io/out 2>io/err
got=$?
status 3
check grep -q 'no readable file' io/err
check [ -z "$(ls home)" ]

finish
