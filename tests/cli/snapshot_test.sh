#!/bin/sh
# kist snapshot: saved, told of, restored; through files and pipes, and every file
# that is refused.
. "$(dirname "$0")/lib.sh"

content() { # STORE BANK: with the times of writes
    "$KIST" dump "$1" "$2" | sed '/^{"index":/d' | sort
}

same() { # STORE BANK: it holds what is in `wanted`
    content "$1" "$2" >got
    check cmp -s wanted got
}

awk 'BEGIN { for (i = 0; i < 3000; i++) printf "{\"key\":\"%05d\",\"value\":\"value %d\"}\n", i, i }' >some.json
head -c 300000 /dev/urandom >random
for kind in hash ordered; do
    if [ $kind = ordered ]; then run create s $kind --ordered; else run create s $kind; fi
    run load s $kind some.json -q
    run put s $kind random <random
    run put s $kind '' 'of the empty key'
    run put s $kind /w== --key-base64 ''
    content s $kind >wanted
    cp wanted wanted.$kind

    t a bank is saved to a file, and is what it was when it is restored, $kind
    run snapshot save s $kind $kind.snap
    status 0
    check grep -Eq "^bank '$kind': 3003 entries, .* saved in " io/out
    check [ "$(stat -c %a $kind.snap)" = 600 ]
    run put s $kind 00001 new
    run put s $kind new new
    run del s $kind 00002
    run snapshot restore s $kind $kind.snap
    status 0
    check grep -Eq "^bank '$kind': 3003 entries, .* restored in " io/out
    same s $kind
    run verify s $kind -q
    status 0

    t through a pipe into another store, $kind
    "$KIST" snapshot save s $kind - 2>io/err | "$KIST" snapshot restore other $kind - --create --json >io/out
    got=$? call='save | restore'
    status 0
    check [ ! -s io/err ]
    check grep -Eq '^\{"bank":"'$kind'","entries":3003,"payload_bytes":[0-9]*,"saved_bytes":[0-9]*\}$' io/out
    same other $kind
    run stat other $kind --json
    check grep -q '"index":"'$kind'"' io/out
    "$KIST" snapshot save s $kind - >piped.snap
    check [ "$(wc -c <piped.snap)" -eq "$(wc -c <$kind.snap)" ]

    t what a file holds is told without a store, and with one, $kind
    run snapshot info $kind.snap
    status 0
    check grep -Eq "^index +$kind\$" io/out
    check grep -Eq '^entries +3003$' io/out
    check grep -Eq "^length +$(wc -c <$kind.snap) bytes" io/out
    check grep -Eq '^taken +20[0-9][0-9]-' io/out
    check [ "$(grep -c '^bank ' io/out)" -eq 0 ]
    run snapshot info s $kind $kind.snap
    status 0
    check grep -Eq "^bank +'$kind', whose sequence is [0-9]+ now\$" io/out
    run snapshot info other $kind $kind.snap
    status 0
    check grep -Eq "^bank +'$kind' is another one\$" io/out
    run snapshot info other $kind $kind.snap --json
    check grep -Eq '^\{"index":"'$kind'","bank_id":"[0-9a-f]{32}","sequence":[0-9]+,"taken_ns":[0-9]+,"entries":3003,"payload_bytes":[0-9]+,"saved_bytes":[0-9]+,"bank":"'$kind'","of_bank":false,"bank_sequence":[0-9]+\}$' io/out
    "$KIST" snapshot info - <$kind.snap >io/out
    check grep -Eq '^snapshot +standard input$' io/out
done

t a bank takes what one of the other kind held
run create s turned
run snapshot restore s turned ordered.snap --quiet
status 0
silent
cp wanted.ordered wanted
same s turned
run stat s turned --json
check grep -q '"index":"hash"' io/out
run snapshot restore s turned hash.snap --create -q
status 0
cp wanted.hash wanted
same s turned

t an empty bank can be saved, and empties another
run create s empty
run snapshot save s empty empty.snap -q
status 0
silent
run snapshot restore s turned empty.snap
status 0
run ls s turned
silent

t a saved one is of one moment, while others write
run create s pair
run put s pair a 1
run put s pair b 1
(
    n=1
    while [ ! -e stop ]; do
        n=$((n + 1))
        printf '%s\n' '{"put":"a","value":"'$n'"}' '{"put":"b","value":"'$n'"}' | "$KIST" batch s pair -q
    done
) &
busy=$!
for i in 1 2 3 4 5; do
    "$KIST" snapshot save s pair - | "$KIST" snapshot restore s copy - --create -q
    check [ "$("$KIST" get s copy a)" = "$("$KIST" get s copy b)" ]
done
touch stop
wait $busy

# ---- where it goes ----------------------------------------------------------------

t a file is replaced as a whole, and keeps its mode and its links
cp empty.snap there.snap
chmod 640 there.snap
ln -s there.snap link.snap
run snapshot save s hash link.snap -q
status 0
check [ -L link.snap ]
check [ "$(stat -c %a there.snap)" = 640 ]
run snapshot info there.snap --json
check grep -q '"entries":3003' io/out

t a save that fails leaves what was there, and nothing else
cp there.snap before.snap
(
    ulimit -f 64 || exit 3
    "$KIST" snapshot save s hash there.snap 2>io/err
)
got=$? call='save beyond ulimit -f'
status 3
err "there.snap'"
check cmp -s there.snap before.snap
check [ -z "$(find . -name '*.saving.*')" ]
for path in missing/x . s/nothing/x; do
    run snapshot save s hash $path
    status 3
    err "'$path'"
done
"$KIST" snapshot save s hash - >/dev/full 2>io/err
got=$? call='save to /dev/full'
status 3
err 'standard output'
{
    "$KIST" snapshot save s hash - 2>io/err
    echo $? >io/status
} | :
got=$(cat io/status) call='save to a pipe that nobody reads'
status 3
check [ ! -s io/err ]
run snapshot save s hash /dev/null -q
status 0
check [ -c /dev/null ]
run snapshot save s hash /dev/full
status 3
err "'/dev/full'"

t saving and info change no byte of the store
picture s >before
run snapshot save s hash x.snap
run snapshot info s hash x.snap
picture s >after
check cmp -s before after

t somebody who may only read can save, list and dump
if nobody true 2>/dev/null && [ "$(id -u)" -eq 0 ]; then
    cp "$KIST" kist-copy
    cp -r s open
    chmod -R a+rX open
    picture open >before
    for kind in hash ordered; do
        nobody ./kist-copy snapshot save open $kind - >saved 2>io/err
        got=$? call='save as nobody'
        status 0
        check [ "$(wc -c <saved)" -eq "$(wc -c <$kind.snap)" ]
        nobody ./kist-copy ls open $kind >io/out 2>io/err
        got=$? call='ls as nobody'
        status 0
        check [ "$(wc -l <io/out)" -eq 3003 ]
        nobody ./kist-copy snapshot restore open $kind - <$kind.snap >io/out 2>io/err
        got=$? call='restore as nobody'
        status 3
        err "bank '$kind'"
    done
    picture open >after
    check cmp -s before after
else
    skip 'needs root and setpriv'
fi

# ---- what is refused ---------------------------------------------------------------

run create s b
run put s b k v
content s b >wanted

# A bad file: refused by its name, as a pipe, and nothing is changed.
bad() { # STATUS SENTENCE, the file in bad.snap
    run snapshot restore s b bad.snap
    status "$1"
    err "$2"
    same s b
    cat bad.snap | "$KIST" snapshot restore s b - >io/out 2>io/err
    got=$? call="restore from a pipe: $2"
    status "$1"
    check grep -q '^kist: standard input' io/err
    check [ ! -s io/out ]
    same s b
}

t what is no snapshot is refused
echo 'no snapshot' >bad.snap
bad 4 'is no saved snapshot'
: >bad.snap
bad 4 'is no saved snapshot'
cp random bad.snap
bad 4 'is no saved snapshot'
cp s/b/kist.heap.1 bad.snap
bad 4 'is no saved snapshot'
run snapshot info bad.snap
status 4
err "'bad.snap' is no saved snapshot"

t a snapshot that was cut short is refused, wherever
size=$(wc -c <hash.snap)
for n in 1 7; do
    head -c $n hash.snap >bad.snap
    bad 4 "'bad.snap'"
done
for n in 8 100 127; do
    head -c $n hash.snap >bad.snap
    bad 4 'it is cut short'
    run snapshot info bad.snap
    status 4
    err 'it is cut short'
done
for n in 128 129 5000 70000 $((size - 33)) $((size - 32)) $((size - 1)); do
    head -c "$n" hash.snap >bad.snap
    bad 4 "cut short, $n bytes instead of $size"
    run snapshot info bad.snap
    status 4
    err "cut short, $n bytes instead of $size"
done
(cat hash.snap; echo) >bad.snap
bad 4 'there is more behind its end'

t a snapshot that was damaged is refused, wherever
for at in 8 20 40 127 128 140 5000 70000 $((size - 30)) $((size - 1)); do
    cp hash.snap bad.snap
    byte=$(od -An -tu1 -j "$at" -N 1 hash.snap)
    # shellcheck disable=SC2059
    printf "\\$(printf %03o $((byte ^ 1)))" | dd of=bad.snap bs=1 seek="$at" conv=notrunc 2>io/dd
    check [ "$(cmp -l hash.snap bad.snap | wc -l)" -eq 1 ]
    bad 4 "'bad.snap'"
done

t with --create what is no snapshot makes nothing, and a damaged one says what it made
echo 'no snapshot' >bad.snap
run snapshot restore new b bad.snap --create
status 4
check [ ! -e new ]
head -c 5000 hash.snap >bad.snap
run snapshot restore new b bad.snap --create
status 4
check [ ! -e new ]
cat bad.snap | "$KIST" snapshot restore new b - --create 2>io/err
got=$? call='restore of a cut one from a pipe, with --create'
status 4
err "bank 'b' was made, and is empty"
run ls new b
silent

t wrong usage is said to be so
run restore s b f
status 2
err "no verb is called 'restore'; did you mean snapshot restore?"
run snapshot
status 2
err 'WHAT [STORE BANK] FILE'
run snapshot save
status 2
run snapshot svae s b f
status 2
err 'did you mean save'
run snapshot drop s b f
status 2
err 'save, info or restore'
run snapshot save s b
status 2
err 'kist snapshot save STORE BANK FILE'
run snapshot info s hash.snap
status 2
err 'kist snapshot info [STORE BANK] FILE'
run snapshot restore hash.snap
status 2
err 'kist snapshot restore STORE BANK FILE'
run snapshot save s b f more
status 2
run snapshot save s b f --create
status 2
err '--create goes with restore'
run snapshot info hash.snap --create
status 2
err '--create goes with restore'
run snapshot save s b - --json
status 2
err --json
run snapshot save s none f
status 3
err "'none'"
check [ ! -e f ]
run snapshot restore s none hash.snap
status 3
err "'none'"
check [ ! -e s/none ]
run snapshot info missing
status 3
err "'missing'"
run snapshot restore s b missing
status 3
err "'missing'"
run snapshot restore s b .
status 3
err "'.'"
run snapshot info s none hash.snap
status 3
err "'none'"
"$KIST" snapshot restore s b - <&- >io/out 2>io/err
got=$? call='restore with a closed standard input'
status 3
err 'standard input'
same s b

finish
