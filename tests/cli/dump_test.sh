#!/bin/sh
# kist dump and kist load: JSON lines and the text of mdb_dump and db_dump, and
# every way in which a dump can be bad.
. "$(dirname "$0")/lib.sh"

# What a bank holds, but for times: sorted lines.
content() { # STORE BANK
    "$KIST" dump "$1" "$2" | sed '/^{"index":/d; s/,"mtime_ns":.*//' | sort
}

run create s b

t what was dumped is what is loaded, whatever the bytes
printf '\377\0\1\n' >value
run put s b bytes <value
run put s b '' 'the empty key'
run put s b empty ''
run put s b 'quote " back \ slash' 'line
line'
run put s b gAE= --key-base64 'a key that is no text'
run put s b 'ü € 😀' 'ü € 😀'
printf '\177\033[0m' | "$KIST" put s b control
head -c 3000000 /dev/urandom >value
run put s b large <value
run dump s b
status 0
check [ "$(wc -l <io/out)" -eq 8 ]
cp io/out all.json
run load s c all.json --create
status 0
check grep -q "^bank 'c': 8 entries, " io/out
content s b >b.content
content s c >c.content
check cmp -s b.content c.content
run load s d --create <all.json
status 0
cat all.json | "$KIST" load s e - --create --json >io/out 2>io/err
got=$? call='cat | kist load'
status 0
check grep -q '^{"bank":"e","entries":8,"bytes":[0-9]*}$' io/out
for bank in d e; do
    content s $bank >c.content
    check cmp -s b.content c.content
done
for kind in lmdb bdb; do
    run del s b ''
    run dump s b --for $kind -q
    status 0
    check [ ! -s io/err ]
    cp io/out dump.$kind
    run load s $kind dump.$kind --create -q
    status 0
    silent
    content s b >b.content
    content s $kind >c.content
    check cmp -s b.content c.content
    run put s b '' 'the empty key'
done
run get s large bytes --create
status 2
run get s c large
check cmp -s value io/out

t dump tells that times are lost, and where they are not
run dump s b --for=bdb
status 0
err 'times of entries are not part of this format'
run dump s b --json
status 0
check grep -q '"mtime_ns":[0-9]*,"expiry_ns":0}$' io/out
check [ ! -s io/err ]

t the headers are those that the other programs take
run dump s b --for=bdb -q
check [ "$(sed '/HEADER=END/q' io/out | tr '\n' ' ')" = 'VERSION=3 format=bytevalue type=hash HEADER=END ' ]
run del s b ''
run dump s b --for=lmdb -q
check [ "$(sed '/HEADER=END/q' io/out | sed 's/=[0-9]*$/=N/' | tr '\n' ' ')" = \
    'VERSION=N format=bytevalue type=btree mapsize=N HEADER=END ' ]
check [ "$(tail -n 1 io/out)" = DATA=END ]

t keys that LMDB cannot hold are told of before anything is printed
run put s b '' x
key=$(printf %0512d 0)
run put s b "$key" x
run dump s b --for=lmdb
status 2
check [ ! -s io/out ]
check [ "$(wc -l <io/err)" -eq 3 ]
check grep -q 'the empty key' io/err
check grep -q 'a key of 512 bytes, 511 is the most' io/err
check grep -q 'nothing was dumped: LMDB cannot hold 2 of the keys' io/err
run dump s b --for=bdb -q
status 0
run del s b ''
run del s b "$key"
run put s b "${key%0}" x
run dump s b --for=lmdb -q
status 0

t a dump of nothing is a dump
run create s none
run dump s none
status 0
silent
run load s none2 --create </dev/null
status 0
check grep -q '0 entries' io/out
run dump s none --for=lmdb
status 0
check [ ! -s io/err ]
"$KIST" dump s none --for=lmdb | "$KIST" load s none2 -q
check [ $? = 0 ]

t loading adds to what is there, and the last one of a key counts
printf '{"key":"one","value":"1"}\n\n  {"value":"2" , "key":"two"}  \n{"key":"one","value":"3"}' >two.json
run put s both zero 0
run put s both zero 0 --create
run load s both two.json
status 0
run get s both one
out 3
run get s both zero
out 0

t what other JSON writers do is understood
printf '%s\n' '{"key":"\u0061\/\"\\\b\f\n\r\t","value":"\u00fc\ud83d\ude00\u0000","bytes":-1.5e+3,"sequence":null}' >odd.json
run load s odd odd.json --create
status 0
run dump s odd
check grep -qF '{"key":"a/\"\\\u0008\u000c\u000a\u000d\u0009","value":"ü😀\u0000",' io/out

t an expiry is not kept, and that is told
echo '{"key":"k","value":"v","expiry_ns":5}' >expiry.json
run load s odd expiry.json
status 0
err 'had an expiry'
run load s odd expiry.json -q
silent
for none in 0 null; do
    echo '{"key":"k","value":"v","expiry_ns":'$none'}' >expiry.json
    run load s odd expiry.json
    check [ ! -s io/err ]
done

# ---- bad dumps --------------------------------------------------------------

# A bad dump: nothing of it is stored, no bank is made, and the line is named.
bad() { # LINE SENTENCE, the dump in bad.dump
    run load s bad bad.dump --create
    status 2
    err "bad.dump, line $1: "
    err "$2"
    check [ ! -e s/bad ]
    run load s bad --create <bad.dump
    err "standard input, line $1: "
}

t a bad line of JSON is named and nothing is loaded
good='{"key":"k","value":"v"}'
printf '%s\n%s\n' "$good" '{"key":"k"}' >bad.dump
bad 2 'there is no "value"'
printf '%s\n\n%s\n' "$good" '{"value":"k"}' >bad.dump
bad 3 'there is no "key"'
printf '%s\n%s' "$good" '{"key":"k","val' >bad.dump
bad 2 'no closing quote'
printf '%s\n%s' "$good" '{"key":"k","value":"v"' >bad.dump
bad 2 'ends in the middle'
printf '%s\n%s' "$good" '{"key":"k",' >bad.dump
bad 2 'ends in the middle'
printf '%s\n%s' "$good" '{' >bad.dump
bad 2 'ends in the middle'
printf '%s\n%s' "$good" '{"key"' >bad.dump
bad 2 'ends in the middle'
printf '%s\n%s' "$good" '{"key":' >bad.dump
bad 2 'ends in the middle'
printf '%s x' "$good" >bad.dump
bad 1 'something stands behind the object'
printf '%s%s' "$good" "$good" >bad.dump
bad 1 'something stands behind the object'
echo '{"key":"k","key":"k","value":"v"}' >bad.dump
bad 1 'comes twice'
echo '{"key":1,"value":"v"}' >bad.dump
bad 1 'have to be strings'
echo '{"key":"k","value":null}' >bad.dump
bad 1 'have to be strings'
echo '{"key":"k","value":{"a":1}}' >bad.dump
bad 1 'an object or a list cannot stand here'
echo '{"key":"k","value":"v","ttl":1}' >bad.dump
bad 1 "no field is called 'ttl'"
echo '{"key":"k","value":"v","bytes":01}' >bad.dump
bad 1 'is no string, number'
echo '{"key":"k","value":"v","bytes":nul}' >bad.dump
bad 1 'is no string, number'
echo '{"key":"k" "value":"v"}' >bad.dump
bad 1 'a comma or } is missing'
echo '{"key" "k"}' >bad.dump
bad 1 'a colon is missing'
echo '{key:"k"}' >bad.dump
bad 1 'has to stand in quotes'
echo '{"key":"k","value":"v",}' >bad.dump
bad 1 'has to stand in quotes'
printf '%s\n[]\n' "$good" >bad.dump
bad 2 'has to begin with {'
printf '{"key":"k","value":"\377"}\n' >bad.dump
bad 1 'not UTF-8'
printf '{"key":"k","value":"\t"}\n' >bad.dump
bad 1 'a control character'
printf '{"key":"k\0","value":"v"}\n' >bad.dump
bad 1 'a control character'
printf '%s\n' '{"key":"\x","value":"v"}' >bad.dump
bad 1 'behind a backslash'
printf '%s' '{"key":"\' >bad.dump
bad 1 'behind a backslash'
printf '%s\n' '{"key":"\u12g4","value":"v"}' >bad.dump
bad 1 'four hexadecimal digits'
printf '%s\n' '{"key":"\ud800","value":"v"}' >bad.dump
bad 1 'surrogate'
printf '%s\n' '{"key":"\ud800\u0041","value":"v"}' >bad.dump
bad 1 'surrogate'
printf '%s\n' '{"key":"\udc00","value":"v"}' >bad.dump
bad 1 'surrogate'
printf '%s\n' '{"ke\u0000y":"","value":"v"}' >bad.dump
bad 1 'NUL'
echo '{"key":"k","value":"?","value_encoding":"base64"}' >bad.dump
bad 1 'the value is not base64'
echo '{"key":"a","key_encoding":"base64","value":"v"}' >bad.dump
bad 1 'the key is not base64'
echo '{"key":"a","key_encoding":"hex","value":"v"}' >bad.dump
bad 1 'is "base64"'
printf '{"key":"%065536d","value":""}\n' 0 >long.json
run load s bad long.json --create
status 2
err 'line 1: a key of 65536 bytes; 65535 is the most'
check [ ! -e s/bad ]

t what is no dump is said to be none
echo 'key value' >bad.dump
bad 1 'this is no dump'
printf '\177ELF' >bad.dump
bad 1 'this is no dump'
head -c 1000 /dev/zero >bad.dump
bad 1 'this is no dump'

# A dump of Berkeley DB's kind with other words, or other data.
head='VERSION=3\nformat=bytevalue\ntype=btree\n'
t a bad header is told of
printf 'VERSION=2\nHEADER=END\nDATA=END\n' >bad.dump
bad 1 "a dump of version '2'"
printf 'VERSION=3\nformat=hex\nHEADER=END\nDATA=END\n' >bad.dump
bad 2 "the format is 'hex'"
printf 'VERSION=3\ntype=recno\nHEADER=END\nDATA=END\n' >bad.dump
bad 2 "of type 'recno'"
printf 'VERSION=3\ntype=queue\nHEADER=END\nDATA=END\n' >bad.dump
bad 2 "of type 'queue'"
printf "$head"'duplicates=1\nHEADER=END\nDATA=END\n' >bad.dump
bad 4 'several values for a key'
printf "$head"'dupsort=1\nHEADER=END\nDATA=END\n' >bad.dump
bad 4 'several values for a key'
printf "$head"'colour=red\nHEADER=END\nDATA=END\n' >bad.dump
bad 4 "a word that is not known, 'colour'"
printf "$head"'HEADER\n' >bad.dump
bad 4 'in lines WORD=VALUE'
printf "$head" >bad.dump
bad 4 'ends in its header'

t bad data is told of
head="${head}HEADER=END\n"
printf "$head"' 6b\n 76\n' >bad.dump
bad 7 'ends without DATA=END'
printf "$head"' 6b\n' >bad.dump
bad 6 'ends without DATA=END'
printf "$head"' 6b\nDATA=END\n' >bad.dump
bad 6 'the last key has no value'
printf "$head"'6b\n 76\nDATA=END\n' >bad.dump
bad 5 'begins with a blank'
printf "$head"' 6b\n\nDATA=END\n' >bad.dump
bad 6 'begins with a blank'
printf "$head"' 6b7\n 76\nDATA=END\n' >bad.dump
bad 5 'cut in half'
printf "$head"' 6b\n 7g\nDATA=END\n' >bad.dump
bad 6 "no hexadecimal digits: '7g'"
printf "$head"' 6b\n 76\nDATA=END\nVERSION=3\n' >bad.dump
bad 8 'another database begins here'

t known words are ignored, capitals and the print form are read
printf 'VERSION=3\nformat=print\ntype=hash\ndatabase=x\nh_nelem=5\nh_ffactor=1\nchksum=1\ndb_pagesize=512\nduplicates=0\nHEADER=END\n a\\\\63\\0A\n \nDATA=END\n' >print.dump
run load s print print.dump --create
status 0
run dump s print
check grep -qF '{"key":"a\\63\u000a","value":"",' io/out
printf 'VERSION=3\nformat=print\ntype=btree\nHEADER=END\n a\\6\n v\nDATA=END\n' >bad.dump
bad 5 'two hexadecimal digits'
printf 'VERSION=3\nformat=print\ntype=btree\nmapsize=1048576\nmaxreaders=126\nHEADER=END\n a\\63\n v\nDATA=END\n' >bad.dump
bad 7 'dump it again without -p'
printf 'VERSION=3\nformat=print\ntype=btree\nmapsize=1048576\nHEADER=END\n a63\n v\nDATA=END\n' >plain.dump
run load s print plain.dump
status 0
run get s print a63
out v

# ---- the command line -----------------------------------------------------------

t wrong usage is said to be so
run load s b all.json --files .
status 2
err 'not both'
run load s b .
status 2
err '--files=.'
run load s b missing.json
status 3
err "'missing.json'"
run load s none3 all.json
status 3
check [ ! -e s/none3 ]
run dump s b --for=sqlite
status 2
err 'json, lmdb or bdb'
run dump s b --for=bdb --json
status 2
err 'two formats'
run dump s
status 2
run dump s nobank
status 3
if [ -e /dev/full ]; then
    for kind in json bdb; do
        "$KIST" dump s b --for=$kind >/dev/full 2>io/err
        got=$? call="kist dump --for=$kind >/dev/full"
        status 3
        err 'cannot write to standard output'
    done
fi

t nothing that a terminal obeys gets into a message
printf 'VERSION=3\ndup\033[1m=\033[2m\nHEADER=END\n' >bad.dump
run load s b bad.dump
status 2
err "('dup\\x1b[1m' is '\\x1b[2m')"
odd=$(printf 'odd\033[1m\nname')
echo '{' >"$odd"
run load s b "$odd"
status 2
err 'odd\x1b[1m\nname, line 1: '
rm "$odd"
mkdir "$odd"
run load s b "$odd"
status 2
err '--files=odd\x1b[1m\nname'

# The program is stopped when it has made the bank, which is behind the first
# reading; once more if it was done before that.
t a dump that is changed while it is loaded is told of
awk 'BEGIN { for (i = 0; i < 60000; i++) printf "{\"key\":\"%d\",\"value\":\"v\"}\n", i }' >whole.json
load_and_change() { # COMMAND that prints what the file is then
    "$KIST" drop s changing 2>io/err
    cp whole.json changing.json
    "$KIST" load s changing changing.json --create >io/out 2>io/err &
    load=$!
    while [ ! -e s/changing/kist.live ] && kill -0 $load 2>/dev/null; do :; done
    kill -STOP $load 2>/dev/null
    sh -c "$1" >changed.json
    cat changed.json >changing.json
    kill -CONT $load 2>/dev/null
    wait $load
    got=$? call="kist load, and $1"
}
for change in ':' 'head -n 30000 whole.json' 'printf "{\n"; cat whole.json' 'printf VERSION=3'; do
    for _ in 1 2 3 4 5 6 7 8; do
        load_and_change "$change"
        [ $got = 0 ] && grep -q ' 60000 entries' io/out || break
    done
    status 3
    check grep -q '^kist: changing.json.*: the dump was changed while it was being loaded$' io/err
    check grep -q 'entries were loaded before that' io/err
    check [ ! -s io/out ]
done

t a pipe that ends early gathers nothing behind
TMPDIR=/nonexistent "$KIST" load s b >io/out 2>io/err <<END
$good
END
got=$? call='load of a here document'
case $got in
0) ;; # a shell that makes a file of it
*) err /nonexistent ;;
esac
cat all.json | TMPDIR=/nonexistent "$KIST" load s b >io/out 2>io/err
got=$? call='load from a pipe without a TMPDIR'
status 3
err /nonexistent

t a damaged entry is told of, and the others come
run create damaged b
i=0
while [ $i -lt 5 ]; do
    "$KIST" put damaged b key$i "value number $i"
    i=$((i + 1))
done
at=$(grep -abo 'value number 2' damaged/b/kist.heap.1 | cut -d: -f1)
printf X | dd of=damaged/b/kist.heap.1 bs=1 seek="$at" conv=notrunc 2>io/dd
run dump damaged b
status 4
err 'kist verify'
check [ "$(wc -l <io/out)" -eq 4 ]

t ls --long shows sizes and ages
run ls s both --long
status 0
check grep -Eq '^ +1 +[0-9]+ (s|min)  zero$' io/out
check [ "$(wc -l <io/out)" -eq 3 ]
run ls s -l
status 0
check grep -Eq '^ +3 +[0-9]+  both$' io/out
run ls s --long --json
check grep -q '^{"bank":"both","entries":3,"payload_bytes":[0-9]*}$' io/out

finish
