#!/bin/sh
# Every verb at its work, options anywhere, values from everywhere.
. "$(dirname "$0")/lib.sh"

# ---- create --------------------------------------------------------------

t create makes a store, and says so when it is there already
run create s
status 0
silent
run create s
status 3
err --exist-ok
run create s --exist-ok
status 0

t create makes a bank once
run create s b
status 0
silent
run create s b
status 3
err --exist-ok
run create --exist-ok s b
status 0
run create new/er b # no parents are made
status 3
run create new b
status 0
run ls new
out b

t create takes every setting
run create s set --durability always --segment-bytes=4K --verify always --expect 1000
status 0
run create s tick --durability=interval --interval 50
status 0
run create s never --verify=never --durability none --segment-bytes 1G --deadline=-1
status 0
run create wide b --mode 0640
status 0
check [ -z "$(find wide -type f ! -perm 640)" ]
check [ -z "$(find wide -type d ! -perm 750)" ]
check [ -z "$(find s -type f ! -perm 600)" ]
check [ -z "$(find s -type d ! -perm 700)" ]

# ---- put, get, has, del --------------------------------------------------

t put stores, get prints the same bytes
run put s b greeting hello
status 0
silent
run get s b greeting
status 0
out hello
check [ "$(wc -c <io/out)" -eq 5 ] # no newline is added
run put s b greeting 'another one'
run get s b greeting
out 'another one'

t options stand anywhere, and -- ends them
run --json get s b greeting
status 2
for place in 1 2 3 4; do
    case $place in
    1) run get --json s b greeting ;;
    2) run get s --json b greeting ;;
    3) run get s b --json greeting ;;
    4) run get s b greeting --json ;;
    esac
    status 0
    check grep -q '"value":"another one"' io/out
done
run put s b -- --json -q
status 0
run get s b -- --json
out -q
run get -q s -- b --json
out -q
run del s b -- --json
status 0
run put --quiet s b --deadline=100 k --any-fs v
status 0
run get s b k --deadline 100
out v

t values come from standard input, too
echo from a pipe | "$KIST" put s b k
run get s b k
out 'from a pipe'
echo from a dash | "$KIST" put s b k -
run get s b k
out 'from a dash'
head -c 3000000 /dev/urandom >random
run put s b k <random
status 0
run get s b k
check cmp -s random io/out
head -c 9000000 /dev/urandom >random # large enough to be mapped
run put s b k <random
run get s b k
check cmp -s random io/out
{
    head -c 10 >/dev/null
    run put s b k # what is left of it
} <random
tail -c +11 random >rest
run get s b k
check [ "$(wc -c <io/out)" -lt 9000000 ]
cat random | "$KIST" put s b k
run get s b k
check cmp -s random io/out

t values may be empty, and keys may
run put s b empty ''
status 0
run get s b empty
status 0
silent
run put s b empty2 </dev/null
run has s b empty2
status 0
run put s b '' 'of the empty key'
status 0
run get s b ''
out 'of the empty key'
run del s b ''
status 0

t keys may be long and have any byte
key=$(printf '%65535s' x)
run put s b "$key" long
status 0
run get s b "$key"
out long
run del s b "$key"
status 0
run put s b AAH/ 'binary key' --key-base64 # 00 01 ff
status 0
run get s b --key-base64 AAH/
out 'binary key'
run has s b 'AAH/'
status 1
run del s b --key-base64 AAH/
status 0

t a key that is not there is exit status 1
run get s b nokey
status 1
err nokey
run get s b nokey --quiet
status 1
silent
run has s b nokey
status 1
silent
run has s b greeting
status 0
silent
run del s b nokey
status 1
err nokey
run del s b greeting
status 0
silent
run del s b greeting -q
status 1
silent

t put makes what is missing only when asked to
run put s other k v
status 3
err 'kist create'
run put fresh other k v
status 3
run put fresh other k v --create
status 0
run get fresh other k
out v

# ---- ls ------------------------------------------------------------------

t ls lists banks, nested ones too
run create l minions/web01
run create l minions
run create l a-bank
status 0
run ls l
status 0
out 'a-bank
minions
minions/web01'

t ls lists keys, each once
for key in one two three; do run put l minions "$key" 1; done
run ls l minions
status 0
out "$(cat io/out)"
check [ "$(sort io/out | tr '\n' ' ')" = 'one three two ' ]
run ls l a-bank
status 0
silent
run put l a-bank 'two
lines' v
run ls l a-bank -0
check [ "$(tr '\0' ';' <io/out)" = 'two
lines;' ]
run ls l a-bank --null
check [ "$(wc -c <io/out)" -eq 10 ]
run ls l --null
check [ "$(tr '\0' ';' <io/out)" = 'a-bank;minions;minions/web01;' ]

t a thousand keys are listed and counted
mkdir many
i=0
while [ $i -lt 1000 ]; do
    i=$((i + 1))
    echo "$i" >many/$i
done
run load l many --files many --create
status 0
run ls l many
check [ "$(sort -n io/out | uniq | wc -l)" -eq 1000 ]
run stat l many
status 0
check grep -Eq '^entries +1000$' io/out
for line in 'their records' 'records that are dead' 'reserved for more' segments 'index depth' 'open for writing by'; do
    check grep -Eq "^$line +[0-9]" io/out
done

# ---- load ----------------------------------------------------------------

t load takes regular files, by their paths
mkdir -p files/sub/deep files/empty-dir
echo 1 >files/one
: >files/sub/nothing
cp random files/sub/deep/large
printf 'b\0\377' >'files/sub/odd name'
ln -s one files/link
ln -s sub files/dirlink
mkfifo files/fifo
run load s files --files files --create
status 0
check grep -q '4 files' io/out
run ls s files
check [ "$(sort io/out)" = 'one
sub/deep/large
sub/nothing
sub/odd name' ]
for f in one sub/nothing sub/deep/large 'sub/odd name'; do
    run get s files "$f"
    status 0
    check cmp -s "files/$f" io/out
done

t load may be given a path with slashes, or a link to a directory
run load s slashes --files files/// --create --quiet
status 0
silent
run get s slashes one
out 1
run load s slashes --files files/dirlink -q
status 0
run has s slashes deep/large
status 0

t load does not load the store into itself
mkdir self
echo 1 >self/file
run load self/store b --files self --create
status 0
run ls self/store b
out file

t load goes on past what it cannot read, and says so
if nobody true 2>/dev/null; then
    mkdir closed
    echo yes >closed/a
    echo no >closed/b
    echo yes >closed/c
    mkdir closed/dir
    chmod 000 closed/b closed/dir
    chmod 777 .
    cp "$KIST" kist-copy # the build may lie where nobody may go
    nobody ./kist-copy load closed-store b --files closed --create >io/out 2>io/err
    got=$? call='kist load as nobody'
    status 3
    check grep -q "closed/b" io/err
    check grep -q "closed/dir" io/err
    check grep -q '2 skipped' io/out
    check [ "$(nobody ./kist-copy ls closed-store b | sort | tr '\n' ' ')" = 'a c ' ]
else
    skip 'cannot become somebody else'
fi

# ---- the verbs of care ---------------------------------------------------

t stat tells of one bank or of all
run stat s files
status 0
check grep -Eq '^entries +4$' io/out
run stat l
status 0
check [ "$(grep -c '^bank ' io/out)" -eq 4 ]

t verify finds a bank whole
run verify s files
status 0
check grep -q 'whole' io/out
run verify s
status 0
run verify s --quiet
status 0
silent

t compact gives space back and keeps every entry
i=0
while [ $i -lt 20 ]; do
    i=$((i + 1))
    "$KIST" put s b k <random
done
before=$(du -k s/b | tail -1 | cut -f1)
run compact s b
status 0
check grep -q "bank 'b'" io/out
after=$(du -k s/b | tail -1 | cut -f1)
check [ "$after" -lt $((before / 2)) ]
run get s b k
check cmp -s random io/out
run compact s -q
status 0
silent

t repair of a whole bank changes no entry
run repair s files
status 0
run get s files sub/deep/large
check cmp -s random io/out
run verify s files
status 0

t clear removes entries, drop the bank
run clear s files
status 0
silent
run ls s files
silent
run get s files one
status 1
run drop l minions
status 0
silent
run ls l
out 'a-bank
many
minions/web01'
run get l minions one
status 3
err minions
run drop l minions
status 3
err minions

t verbs that only read change no byte
for key in 1 2 3; do run put s set "$key" "$key"; done
picture s >before
run get s set 1
status 0
run get s set none
run has s set 1
run ls s
run ls s set
run stat s
run verify s
status 0
picture s >after
check cmp -s before after

# ---- damage --------------------------------------------------------------

t damage is exit status 4, and names the place
run create d b
head -c 20000 /dev/zero | tr '\0' Z >zeds
run put d b zeds <zeds
run put d b other fine
# The middle of the Zs in the heap, wherever that is.
for heap in d/b/kist.heap.*; do
    at=$(grep -abo ZZZZZZZZ "$heap" | head -1 | cut -d: -f1)
    if [ -n "$at" ]; then break; fi
done
check [ -n "$at" ]
printf 'damage' | dd of="$heap" bs=1 seek=$((at + 10000)) conv=notrunc 2>/dev/null
run verify d b
status 4
err "bank 'b'"
check grep -q 'damaged' io/out
run verify d
status 4
run get d b zeds
status 4
err "'b'"
check [ ! -s io/out ]
run ls d b
status 4
out other
run get d b other
status 0
out fine
run repair d b
status 0
run get d b other
out fine

# ---- help ----------------------------------------------------------------

t help knows every verb
run help
status 0
for verb in create put get has del ls stat dump load batch snapshot copy verify repair compact clear drop help; do
    check grep -q "^  $verb " io/out
done
cp io/out io/all
for verb in $(sed -n 's/^  \([a-z]*\) .*/\1/p' io/all); do
    run help "$verb"
    status 0
    check grep -q "^usage: kist $verb " io/out
    cp io/out io/first
    run "$verb" --help
    status 0
    check cmp -s io/first io/out
done
run --help
status 0
run -h
status 0
run --version
status 0
check grep -Eq '^kist [0-9]+\.[0-9]+\.[0-9]+$' io/out

t help tells the same defaults as the header
header=$here/../../include/kist/kist.h
run help create
for both in 'default 10000:default 10,000' 'default none:default none' \
    'default 64M:default 64 MiB' 'default first:default first' 'default 0600:default 0600'; do
    check grep -qF "${both%%:*}" io/out
    check grep -qF "${both#*:}" "$header"
done

finish
