#!/bin/sh
# kist copy: the copy, while the store is in use, and where none can be made.
. "$(dirname "$0")/lib.sh"

run create s one --segment-bytes=16K --durability=always
run create s deep/er
i=0
while [ $i -lt 60 ]; do
    "$KIST" put s one key$i "value $i"
    i=$((i + 1))
done
run put s deep/er k v
run del s one key7

contents() { # every key with its value and what is known of it, sorted
    for bank in $("$KIST" ls "$1"); do
        for key in $("$KIST" ls "$1" "$bank"); do
            echo "$bank $("$KIST" get "$1" "$bank" "$key" --json)"
        done
    done | sort
}
contents s >before

t a copy has what the store has, settings too
run copy s c
status 0
check grep -q "2 banks, 60 entries" io/out
contents c >after
check cmp -s before after
run verify c
status 0
check cmp -s s/one/kist.bank c/one/kist.bank
check [ -z "$(find . -name '*.copying.*')" ]

t it tells in JSON, and with --quiet nothing
run copy s c2 --json
status 0
check grep -q '^{"store":"s","copy":"c2","banks":2,"entries":60,"bytes":[0-9]*}$' io/out
run copy s c3 -q
status 0
silent

t it has the permissions that were asked for
run copy s wide --mode=0640
status 0
check [ -z "$(find wide -type f ! -perm 640)" ]
check [ -z "$(find wide -type d ! -perm 750)" ]

t the store does not change
picture s >picture.before
run copy s c4
picture s >picture.after
check cmp -s picture.before picture.after

t it can be written, and the original knows nothing of it
run put c one new value
status 0
run has s one new
status 1
run get c one key8
out 'value 8'

t a copy of an empty store is a store
run create empty
run copy empty empty2
status 0
run ls empty2
status 0
silent

t a target that is there already stays as it is
mkdir there
run copy s there
status 3
err "'there': there is something by that name already"
check [ -z "$(ls there)" ]
echo text >file
run copy s file
status 3
err 'already'
run copy s c
status 3
check [ "$(cat file)" = text ]

t a target that will not do is refused
run copy s no/where
status 3
err "'no/where'"
run copy s s/copy
status 2
err 'inside of the store'
run copy s .
status 2
err 'no name for a directory'
run copy s
status 2
err 'STORE TARGET'
run copy none c9
status 3
run copy s c9 --create
status 2
err '--create'
check [ ! -e c9 ]

t a damaged bank is not copied
run copy s damaged
printf X | dd of=damaged/one/kist.heap.2 bs=1 seek=200 conv=notrunc 2>io/dd
run copy damaged c9
status 4
err "damaged records, so no copy was made"
check [ ! -e c9 ]
check [ -z "$(find . -name '*.copying.*')" ]

t a bank whose heap lacks a file is not copied, and the advice helps
rm -rf damaged
run create damaged b --segment-bytes=4K
i=0
while [ $i -lt 60 ]; do
    echo '{"key":"'$i'","value":"'"$(printf %0200d 0)"'"}'
    i=$((i + 1))
done >sixty.json
run load damaged b sixty.json
rm damaged/b/kist.heap.2
run copy damaged c9
status 4
err "bank 'b' has 60 entries, its heap "
check grep -q "run 'kist repair'" io/err
check [ ! -e c9 ]
run repair damaged b
status 0
run copy damaged c9
status 0
run verify c9
status 0

t a copy made while the store is written has only whole versions
(
    n=0
    while [ ! -e stop ]; do
        n=$((n + 1))
        "$KIST" put s one busy "$n $n $n"
    done
) &
busy=$!
for i in 1 2 3 4 5; do
    run copy s busy$i
    status 0
    run verify busy$i
    status 0
done
touch stop
wait $busy
last=0
for i in 1 2 3 4 5; do
    run get busy$i one busy
    [ "$got" = 0 ] || continue # the first may have been before the first put
    # shellcheck disable=SC2046
    set -- $(cat io/out)
    check [ "$1" = "$2" ]
    check [ "$2" = "$3" ]
    check [ "$1" -ge "$last" ]
    last=$1
done
check [ "$last" -gt 0 ]

finish
