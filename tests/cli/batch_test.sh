#!/bin/sh
# kist batch: what it changes all at once, and every line and expectation with
# which it changes nothing.
. "$(dirname "$0")/lib.sh"

# The keys and values of a bank, sorted.
content() { # STORE BANK
    "$KIST" dump "$1" "$2" | sed '/^{"index":/d; s/,"mtime_ns":.*//' | sort
}

sequence() { # STORE BANK KEY
    "$KIST" get "$1" "$2" "$3" --json | sed 's/.*"sequence":\([0-9]*\).*/\1/'
}

for kind in hash ordered; do
    if [ $kind = ordered ]; then run create s $kind --ordered; else run create s $kind; fi

    t puts and deletes come all at once, $kind
    run put s $kind old 1
    run put s $kind kept 1
    cat >lines <<'END'
{"put":"one","value":"1"}

  { "value" : "2", "put" : "two" }
{"delete":"old"}
{"delete":"never was"}
{"put":"","value":""}
{"put":"gAE=","key_encoding":"base64","value":"/w==","value_encoding":"base64"}
{"put":"\u00fc","value":"\ud83d\ude00"}
END
    run batch s $kind <lines
    status 0
    out "bank '$kind': 7 changes, made all at once"
    content s $kind >got
    cat >wanted <<'END'
{"key":"","value":""
{"key":"gAE=","key_encoding":"base64","value":"/w==","value_encoding":"base64"
{"key":"kept","value":"1"
{"key":"one","value":"1"
{"key":"two","value":"2"
{"key":"ü","value":"😀"
END
    check cmp -s wanted got

    t the last change of a key counts, $kind
    printf '%s\n' '{"put":"k","value":"1"}' '{"delete":"k"}' '{"put":"k","value":"3"}' \
        '{"put":"gone","value":"1"}' '{"delete":"gone"}' | "$KIST" batch s $kind - --json >io/out 2>io/err
    got=$? call='batch from a pipe'
    status 0
    out '{"bank":"'$kind'","changes":2}'
    run get s $kind k
    out 3
    run has s $kind gone
    status 1

    t what is expected has to be so, $kind
    one=$(sequence s $kind one)
    printf '%s\n' '{"expect":"one","sequence":'"$one"'}' '{"put":"one","value":"new"}' \
        '{"expect":"not there","sequence":0}' >lines
    run batch s $kind lines --quiet
    status 0
    silent
    run get s $kind one
    out new
    content s $kind >before
    run batch s $kind lines # it has another sequence now
    status 1
    err "lines, line 1: key 'one' has the sequence $(sequence s $kind one) now, and not $one"
    err 'nothing was changed'
    check [ ! -s io/out ]
    run batch s $kind lines --quiet
    status 1
    silent
    printf '%s\n' '{"put":"one","value":"newer"}' '{"expect":"kept","sequence":0}' >lines
    run batch s $kind lines
    status 1
    err "lines, line 2: key 'kept' has a value, of sequence "
    printf '%s\n' '{"put":"x","value":""}' '{"expect":"x","sequence":1}' >lines
    run batch s $kind lines # of the bank, not of the batch
    status 1
    err "lines, line 2: key 'x' has no value"
    printf '%s\n' '{"expect":"eA==","key_encoding":"base64","sequence":7}' >lines
    run batch s $kind lines
    status 1
    err "lines, line 1: key 'x' has no value"
    content s $kind >after
    check cmp -s before after
    printf '%s\n' '{"expect":"one","sequence":'"$(sequence s $kind one)"'}' >lines
    run batch s $kind lines
    status 0
    out "bank '$kind': 0 changes, made all at once"

    t a batch of nothing is a batch, $kind
    run batch s $kind </dev/null
    status 0
    out "bank '$kind': 0 changes, made all at once"
    printf '\n \t\n' >lines
    run batch s $kind lines
    status 0
done

t a hundred thousand changes, in a bank that has some of the keys
awk 'BEGIN { for (i = 0; i < 100000; i++) printf "{\"put\":\"key%06d\",\"value\":\"a value of %d\"}\n", i, i }' >lines
awk 'BEGIN { for (i = 0; i < 1000; i++) printf "{\"delete\":\"key%06d\"}\n", i * 97 }' >deletes
for kind in hash ordered; do
    run clear s $kind
    head -n 5000 lines | "$KIST" batch s $kind -q
    run batch s $kind lines
    status 0
    out "bank '$kind': 100000 changes, made all at once"
    run batch s $kind deletes
    status 0
    run stat s $kind --json
    check grep -q '"entries":99000,' io/out
    run get s $kind key099999
    out 'a value of 99999'
    run verify s $kind -q
    status 0
done

t readers see all of a batch or nothing of it
run create s pair
printf '%s\n' '{"put":"a","value":"1"}' '{"put":"b","value":"1"}' | "$KIST" batch s pair -q
(
    n=1
    while [ ! -e stop ]; do
        n=$((n + 1))
        printf '%s\n' '{"put":"a","value":"'$n'"}' '{"put":"b","value":"'$n'"}' | "$KIST" batch s pair -q
    done
) &
busy=$!
for i in 1 2 3 4 5 6 7 8 9 10; do
    run dump s pair
    check [ "$(sed 's/.*"value":"\([0-9]*\)".*/\1/' io/out | uniq | wc -l)" -eq 1 ]
done
touch stop
wait $busy

# It waits for the lines to come while it is killed, or its input ends within one.
t a batch that is killed, or cut short, changes nothing
mkfifo pipe
for kind in hash ordered; do
    content s $kind >before
    "$KIST" batch s $kind pipe >io/out 2>io/err &
    batch=$!
    exec 3>pipe
    sed 's/"value":"/&killed /' lines >&3
    kill -9 $batch
    wait $batch 2>/dev/null
    exec 3>&-
    content s $kind >after
    check cmp -s before after
    run stat s $kind --json
    check grep -q '"entries":99000,' io/out
    head -c 1000010 lines | "$KIST" batch s $kind >io/out 2>io/err
    got=$? call='batch of a part of the lines'
    status 2
    err 'nothing was changed'
    content s $kind >after
    check cmp -s before after
    run put s $kind still 'to be written'
    status 0
    run del s $kind still
done

# ---- bad batches ------------------------------------------------------------------

run create s b
run put s b k v
content s b >before

# Lines that are good stand around the bad one; nothing of them is done.
bad() { # LINE SENTENCE
    {
        echo '{"put":"before","value":"1"}'
        printf '%s\n' "$1"
        echo '{"delete":"k"}'
    } >lines
    run batch s b lines
    status 2
    err 'lines, line 2: '
    err "$2"
    err 'nothing was changed'
    check [ ! -s io/out ]
    "$KIST" batch s b <lines >io/out 2>io/err
    got=$? call="kist batch < $1"
    status 2
    err 'standard input, line 2: '
    content s b >after
    check cmp -s before after
}

t a bad line is named and nothing is changed
bad '{"putt":"k","value":"v"}' "no operation is called 'putt'; there are put, delete, expect"
bad '{"key":"k","value":"v"}' "no operation is called 'key'"
bad '{}' 'there is no operation'
bad '{"value":"v"}' 'there is no operation'
bad '{"put":"k"}' 'a put without a "value"'
bad '{"expect":"k"}' 'an expect without a "sequence"'
bad '{"delete":"k","value":"v"}' 'a "value" goes with put alone'
bad '{"expect":"k","sequence":1,"value":"v"}' 'a "value" goes with put alone'
bad '{"put":"k","value":"v","sequence":1}' 'a "sequence" goes with expect alone'
bad '{"delete":"k","sequence":1}' 'a "sequence" goes with expect alone'
bad '{"put":"k","value":"v","delete":"l"}' 'more than one operation'
bad '{"put":"k","put":"l","value":"v"}' 'more than one operation'
bad '{"put":"k","value":"v","value":"w"}' 'comes twice'
bad '{"expect":"k","sequence":1,"sequence":1}' 'one whole number'
bad '{"expect":"k","sequence":"1"}' 'one whole number'
bad '{"expect":"k","sequence":-1}' 'a whole number'
bad '{"expect":"k","sequence":1.5}' 'a whole number'
bad '{"expect":"k","sequence":1e3}' 'a whole number'
bad '{"expect":"k","sequence":18446744073709551616}' 'a whole number'
bad '{"expect":"k","sequence":99999999999999999999}' 'a whole number'
bad '{"expect":"k","sequence":null}' 'a whole number'
bad '{"put":1,"value":"v"}' 'have to be strings'
bad '{"put":"k","value":2}' 'have to be strings'
bad '{"delete":true}' 'have to be strings'
bad '{"put":"?","key_encoding":"base64","value":"v"}' 'the key is not base64'
bad '{"put":"k","value":"v","value_encoding":"base64"}' 'the value is not base64'
bad '{"put":"k","value":"v","value_encoding":"hex"}' 'is "base64"'
bad '{"delete":"k","value_encoding":"base64"}' '"value_encoding" goes with a "value"'
bad '{"put":"k","value":"v"' 'ends in the middle'
bad '{"put":"k","value":"v"} x' 'something stands behind the object'
bad 'put k v' 'has to begin with {'
bad '["put","k","v"]' 'has to begin with {'
bad "$(printf '{"put":"k","value":"\377"}')" 'not UTF-8'
bad "{\"put\":\"$(printf %065536d 0)\",\"value\":\"\"}" 'a key of 65536 bytes; 65535 is the most'
bad "$(printf '{"\033[1m":"k"}')" 'a control character'
bad '{"\u001b[1m":"k"}' "no operation is called '\\x1b[1m'"
run batch s b <<END
{"expect":"nothing","sequence":18446744073709551615}
END
status 1

t wrong usage is said to be so
run batch s
status 2
run batch s b lines more
status 2
run batch s none lines
status 3
err "'none'"
check [ ! -e s/none ]
run batch none b lines
status 3
run batch s b missing
status 3
err "'missing'"
run batch s b .
status 3
err 'Is a directory'
run batch s b lines --create
status 2
err "no option '--create'"
"$KIST" batch s b <&- >io/out 2>io/err
got=$? call='batch with a closed standard input'
status 3
err 'standard input'
content s b >after
check cmp -s before after

finish
