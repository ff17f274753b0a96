#!/bin/sh
# Ordered banks: made, listed by ranges, dumped and loaded; and what a hash bank
# has not.
. "$(dirname "$0")/lib.sh"

kind_is() { # STORE BANK KIND
    run stat "$1" "$2"
    status 0
    check grep -Eq "^index +$3\$" io/out
}

lists() { # KEYS OPTIONS: what ls prints of s/o, on one line
    wanted=$1
    shift
    run ls s o "$@"
    status 0
    checks=$((checks + 1))
    [ "$(tr '\n' ' ' <io/out)" = "${wanted:+$wanted }" ] || fault "listed $(tr '\n' ' ' <io/out)"
}

# ---- create ------------------------------------------------------------------

t an ordered bank is made once, and told apart from a hash bank
run create s o --ordered
status 0
silent
kind_is s o ordered
run create s h
kind_is s h hash
run create s o --ordered
status 3
err --exist-ok
run create s o --ordered --exist-ok
status 0
run create s o --exist-ok
status 0
run create s h --ordered --exist-ok
status 3
err "bank 'h' is there already and is a hash bank"
kind_is s h hash
run create s2 --ordered
status 2
err BANK
check [ ! -e s2 ]
run create s set --ordered --durability always --segment-bytes=4K --verify always --expect 1000
status 0
kind_is s set ordered

# ---- ls ------------------------------------------------------------------------

t keys are listed in the order of their bytes
for key in b a ab abc aa '' 'z' Z 'ü' ac; do run put s o "$key" v; done
run del s o ''
lists 'Z a aa ab abc ac b z ü'
run put s o '' v
run ls s o
check [ "$(head -n 1 io/out)" = '' ]
check [ "$(wc -l <io/out)" -eq 10 ]
run del s o ''
lists 'ü z b ac abc ab aa a Z' --reverse
lists 'ü z b ac abc ab aa a Z' -r

t a range has its first key and not its end
lists 'ab abc ac b z ü' --from ab
lists 'Z a aa' --to ab
lists 'ab abc ac' --from ab --to b
lists 'ac abc ab' --from ab --to b --reverse
lists '' --from ab --to ab
lists 'b z' --from=az --to=zz
lists '' --from 'üü'
lists '' --to ''
lists 'Z a aa ab abc ac b z ü' --from ''
lists '' --from ad --to ae

t a prefix is what keys begin with
lists 'a aa ab abc ac' --prefix a
lists 'ab abc' --prefix ab
lists '' --prefix abcd
lists 'Z a aa ab abc ac b z ü' --prefix ''
lists 'ab abc ac' --prefix a --from ab
lists 'a aa' --prefix a --to ab
lists 'ac abc' --prefix a --from abc --to x --reverse
lists '' --prefix a --from b

t a limit ends the listing
lists 'Z a' --limit 2
lists 'ü z' --limit 2 --reverse
lists 'abc' --limit 1 --from abb
lists 'a aa ab abc ac' --prefix a --limit 99
lists 'ac abc' --prefix a --limit=2 --reverse

t keys of any bytes can be named as base64
run create s binary --ordered
for key in /w== //8= /wA= AA== /v//; do run put s binary "$key" v --key-base64; done
run ls s binary --key-base64 --prefix /w==
status 0
check [ "$(od -An -v -tx1 io/out | tr -d ' \n')" = ff0aff000affff0a ]
run ls s binary --key-base64 --from /wA= --to //8= -0
check [ "$(od -An -v -tx1 io/out | tr -d ' \n')" = ff0000 ]
run ls s binary --key-base64 --to /w== --reverse --json
check [ "$(sed 's/,"bytes".*//' io/out | tr '\n' ' ')" = \
    '{"key":"/v//","key_encoding":"base64" {"key":"\u0000" ' ]
run ls s binary --key-base64 --prefix '/w='
status 2
err "'/w=' is not base64"

t sizes and ages are listed of a range, too
run ls s o --long --from b --limit 1
status 0
check grep -Eq '^ +1 +[0-9]+ (s|min)  b$' io/out
check [ "$(wc -l <io/out)" -eq 1 ]

t a bad range is refused
run ls s o --from b --to a
status 2
err "--to is 'a', which comes before 'b' of --from"
run ls s o --from aa --to a
status 2
err "--to is 'a'"
for limit in 0 -1 many '' 1x; do
    run ls s o --limit="$limit"
    status 2
    err --limit
done
run ls s o --reverse=yes
status 2
err 'takes no value'
for option in --from=a --to=a --prefix=a --limit=1 --reverse; do
    run ls s "$option"
    status 2
    err 'kist ls STORE BANK'
done
run ls s o --form a
status 2
err '--from'

t a hash bank has prefixes and limits, and no order
for key in a1 b1 a2 b2; do run put s h "$key" v; done
run ls s h --prefix a
status 0
check [ "$(sort io/out | tr '\n' ' ')" = 'a1 a2 ' ]
run ls s h --prefix c
status 0
silent
run ls s h --prefix b --limit 1
check grep -Eqx 'b[12]' io/out
check [ "$(wc -l <io/out)" -eq 1 ]
run ls s h --limit 3
check [ "$(wc -l <io/out)" -eq 3 ]
run ls s h --limit 99
check [ "$(wc -l <io/out)" -eq 4 ]
for option in --from=a --to=b --reverse; do
    run ls s h --prefix a "$option"
    status 2
    err "bank 'h' is a hash bank"
    err "${option%=*};"
    check [ ! -s io/out ]
done

t many keys are listed in order, in both directions, and by any range
awk 'BEGIN { for (i = 0; i < 5000; i++) printf "{\"key\":\"%05d\",\"value\":\"%d\"}\n", i * 7919 % 5000, i }' >many.json
run load s many many.json --create --ordered
status 0
kind_is s many ordered
seq -f %05g 0 4999 >wanted
run ls s many
check cmp -s wanted io/out
run ls s many --reverse
sort -r wanted >wanted.reverse
check cmp -s wanted.reverse io/out
run ls s many --from 01234 --to 04321
sed -n '1235,4321p' wanted >wanted.range
check cmp -s wanted.range io/out
run ls s many --prefix 03 --reverse --limit 700
sed -n '3001,4000p' wanted | sort -r | head -n 700 >wanted.range
check cmp -s wanted.range io/out

# ---- one moment ------------------------------------------------------------------

# A listing that nobody reads on waits in its pipe, and holds its moment.
t a dump is of one moment, and stat tells that it is held
mkfifo pipe
for bank in many h; do
    [ $bank = many ] || "$KIST" load s h many.json -q
    run dump s $bank
    cp io/out wanted
    "$KIST" dump s $bank >pipe 2>io/err &
    dump=$!
    exec 3<pipe
    IFS= read -r first <&3
    sed 's/"value":"/&new /' many.json | "$KIST" load s $bank -q
    "$KIST" del s $bank 02500
    "$KIST" put s $bank new new
    run stat s $bank --json
    check grep -Eq '"oldest_pin":[1-9]' io/out
    run stat s $bank
    check grep -Eq '^oldest snapshot +of sequence [1-9][0-9]*$' io/out
    run compact s $bank
    status 0
    check grep -q 'are kept for snapshots that are open' io/out
    run stat s $bank --json
    check grep -Eq '"pinned_bytes":[1-9]' io/out
    {
        printf '%s\n' "$first"
        cat <&3
    } >got
    exec 3<&-
    wait $dump
    check [ $? -eq 0 ]
    check cmp -s wanted got
    run stat s $bank
    check grep -Eq '^oldest snapshot +none$' io/out
    run compact s $bank -q
    run stat s $bank --json
    check grep -q '"pinned_bytes":0[,}]' io/out
done

# ---- dump, load, copy -----------------------------------------------------------

content() { # STORE BANK
    "$KIST" dump "$1" "$2" | sed '/^{"index":/d; s/,"mtime_ns":.*//'
}

t a dump of an ordered bank makes an ordered bank
run dump s o
status 0
check [ "$(head -n 1 io/out)" = '{"index":"ordered"}' ]
check [ "$(wc -l <io/out)" -eq 10 ]
content s o >o.content
"$KIST" dump s o | "$KIST" load s again --create -q
kind_is s again ordered
content s again >got
check cmp -s o.content got
run dump s h
check grep -q '^{"key"' io/out
check [ "$(grep -c index io/out)" -eq 0 ]
"$KIST" dump s h | "$KIST" load s hash-again --create -q
kind_is s hash-again hash
run create s empty --ordered
run dump s empty
out '{"index":"ordered"}'
"$KIST" dump s empty | "$KIST" load s empty-again --create -q
kind_is s empty-again ordered

t the type of a dump for Berkeley DB tells the kind, LMDB has one
for kind in o:bdb:btree:ordered h:bdb:hash:hash o:lmdb:btree:ordered h:lmdb:btree:ordered; do
    IFS=: read -r bank target type index <<END
$kind
END
    run dump s "$bank" --for="$target" -q
    check grep -qx "type=$type" io/out
    cp io/out dump
    run load s "$bank-$target" dump --create -q
    status 0
    kind_is s "$bank-$target" "$index"
done

t a bank that is there keeps its kind, unless another one is asked for
"$KIST" dump s o >o.json
run create s kept
run load s kept o.json --create -q
status 0
kind_is s kept hash
run clear s kept
run load s kept o.json --create --ordered
status 3
err "bank 'kept' is there already and is a hash bank"
run ls s kept
silent
run load s new o.json --ordered
status 2
err '--create'
run load s new many.json --ordered --create -q
status 0
kind_is s new ordered
mkdir files
for f in c a b; do echo $f >files/$f; done
run load s files --files files --create --ordered -q
status 0
run ls s files
out 'a
b
c'

t what a dump says of its bank has to be right
printf '%s\n' '{"index":"sorted"}' >bad.dump
run load s bad bad.dump --create
status 2
err 'line 1: the kinds of "index"'
printf '%s\n' '{"key":"k","value":"v"}' '{"key":"k","value":"v","index":"hash"}' >bad.dump
run load s bad bad.dump --create
status 2
err 'line 2: "index" tells of the bank'
printf '%s\n' '{"index":2}' >bad.dump
run load s bad bad.dump --create
status 2
check [ ! -e s/bad ]
printf '%s\n' '{"index":"hash"}' '{"key":"k","value":"v"}' >good.dump
run load s good good.dump --create
status 0
kind_is s good hash

t a copy, a repair and a compaction keep order and kind
run copy s copied -q
status 0
kind_is copied many ordered
run ls copied many
check [ "$(sort -c io/out && wc -l <io/out)" -eq 5000 ]
run verify copied -q
status 0
run repair s o -q
status 0
lists 'Z a aa ab abc ac b z ü'
run compact s o -q
status 0
lists 'Z a aa ab abc ac b z ü'
kind_is s o ordered

finish
