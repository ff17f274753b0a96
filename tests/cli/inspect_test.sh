#!/bin/sh
# kist inspect: what is in the files of a bank, whatever their state.
. "$(dirname "$0")/lib.sh"

run create s b
run put s b first 'one'
run put s b second 'two'
run del s b first
run create s b/nested
run put s b/nested 'a
b' x

t records and blocks are printed
run inspect s b
status 0
check [ ! -s io/err ]
check grep -q "^bank 'b'$" io/out
check grep -q '^kist.heap.1: segment 1, [0-9]* bytes, incarnation 1' io/out
check grep -Eq "^ +[0-9]+  put +sequence [0-9]+, key 'first', value of 3 'one'$" io/out
check grep -Eq "^ +[0-9]+  delete +sequence [0-9]+, key 'first', first written to segment 1$" io/out
check grep -Eq '^ +[0-9]+  mark +sequence [0-9]+, durable before segment 1 byte [0-9]+$' io/out
check grep -Eq '^ +[0-9]+  [0-9]+ bytes of zeros$' io/out
check grep -Eq '^kist.index.[0-9]+: hash index, generation [0-9]+, 4096 bytes, directory of depth 0 at 128' io/out
check grep -Eq 'depth 0, 2 of 256 slots used, 0 of 32 buckets overflow' io/out
check [ "$(grep -c nested io/out)" -eq 0 ]

t without a bank all are printed, and keys are escaped
run inspect s
status 0
check [ "$(grep -c '^bank ' io/out)" -eq 2 ]
check grep -qF "key 'a\\nb'" io/out

t nothing is changed
before=$(picture s)
run inspect s
check [ "$before" = "$(picture s)" ]

t it says no as the other verbs do
run inspect none
status 3
err none
run inspect s none
status 3
err none
run inspect s b k
status 2
err 'too many'

t JSON has an object for each
if command -v python3 >/dev/null; then
    run inspect s b --json
    status 0
    check python3 -c '
import json
L = [json.loads(line) for line in open("io/out")]
kinds = [o["kind"] for o in L if o["what"] == "record"]
assert kinds.count("put") == 2 and kinds.count("delete") == 1, kinds
seg = [o for o in L if o["what"] == "segment"][0]
recs = [o for o in L if o["what"] == "record"]
assert recs[0]["offset"] == 128
for a, b in zip(recs, recs[1:]):
    assert a["offset"] + a["bytes"] == b["offset"]
rest = [o for o in L if o["what"] == "rest"][0]
assert rest["offset"] + rest["zeros"] == seg["file_bytes"] and rest["other_bytes"] == 0
assert sum(o["used"] for o in L if o["what"] == "block") == 2
index = [o for o in L if o["what"] == "index"][0]
assert index["bank_id"] == seg["bank_id"] and len(seg["bank_id"]) == 32'
else
    skip 'needs python3'
fi

t large keys and values, many segments and index blocks
run create s big --segment-bytes=64K
mkdir files
i=0
while [ $i -lt 700 ]; do
    printf 'value %s' $i >"files/key$i"
    i=$((i + 1))
done
head -c 200000 /dev/zero >files/large
run load s big --files=files
status 0
run inspect s big
status 0
check [ "$(grep -c "  put  " io/out)" -eq 701 ]
check [ "$(grep -c '^kist.heap' io/out)" -gt 1 ]
check grep -Eq "key 'large', value of 200000 '.*'\.\.\., sums of chunks$" io/out
check [ "$(grep -c 'slots used' io/out)" -gt 1 ]

t the tree of an ordered bank is printed from its root, in the order of keys
run create o o --ordered
run inspect o
status 0
check grep -q 'ordered index, generation 1, ' io/out
check [ "$(grep -Ec ' leaf, | node ' io/out)" -eq 0 ]
awk 'BEGIN { for (i = 0; i < 5000; i++) printf "{\"put\":\"a common prefix/%06d\",\"value\":\"%d\"}\n", i * 7919 % 5000, i }' >lines
run batch o o lines -q
run inspect o o
status 0
check [ ! -s io/err ]
check grep -Eq '^kist.index.1: ordered index, generation 1, [0-9]+ bytes, root of level [1-9] at [0-9]+, [0-9]+ pages given out$' io/out
check [ "$(sed -n 's/.* leaf, \([0-9]*\) of 15 entries used, .*/\1/p' io/out | awk '{ n += $1 } END { print n }')" -eq 5000 ]
check grep -Eq "^ +[0-9]+  node of level 1, [0-9]+ bytes, [0-9]+ children, prefix of [0-9]+ 'a common prefix/[0-9]*'$" io/out
run inspect o o --json
check grep -Eq '"what":"index","offset":0,"kind":"ordered",' io/out
check grep -Eq '"what":"node",.*"level":[1-9],"children":[0-9]+,' io/out
check grep -Eq '"what":"leaf",.*"entries":[0-9]+,"slots":15,"skip":[0-9]+}' io/out
cp -r o hurt
index=$(ls hurt/o/kist.index.*)
printf '\377\377\377\377\377\377\377\377' | dd of="$index" bs=1 seek=64 conv=notrunc 2>/dev/null
run inspect hurt o
status 4
err 'leads out of the file'
printf '\003' | dd of="$index" bs=1 seek=12 conv=notrunc 2>/dev/null
run inspect hurt o
status 4
err 'a kind of index that this version does not know'
if command -v python3 >/dev/null; then
    # A root of level 12, with 64 words for one node of level 11, and so on.
    python3 - "$(ls o/o/kist.index.*)" "$index" <<'END'
import struct, sys
file = bytearray(13 * 4096)
file[:64] = open(sys.argv[1], "rb").read(64)
word = 1 << 48 | 256
for level in range(1, 13):
    at = level * 4096
    struct.pack_into("<BBHHHII", file, at, level, 0, 63, 0, 0, 0, 0)
    struct.pack_into("<64Q", file, at + 16 + 8 * 63, *[word] * 64)
    word = 8 << 48 | at | level
struct.pack_into("<Q", file, 64, word)
open(sys.argv[2], "wb").write(file)
END
    timeout 20 "$KIST" inspect hurt o >io/out 2>io/err
    check [ $? -eq 4 ]
    check grep -q 'again and again' io/err
else
    skip 'needs python3'
fi

t its memory does not depend on what it reads
head -c 50000000 /dev/zero >files/huge
run load s big --files=files
status 0
run inspect s big
cp io/out unbounded
(ulimit -v 32768 && "$KIST" inspect s big >io/out 2>io/err)
check cmp -s io/out unbounded

t damage is told and the rest printed
rm -rf hurt
cp -r s hurt
heap=hurt/b/kist.heap.1
printf 'XXXXXXXX' | dd of=$heap bs=1 conv=notrunc 2>/dev/null
run inspect hurt b
status 4
check grep -q 'damaged' io/err
check grep -q "key 'first'" io/out # by the second copy of the header
printf '\377\377\377\377' | dd of=$heap bs=1 seek=160 conv=notrunc 2>/dev/null # a length
run inspect hurt b
check grep -q 'bytes that are no record' io/out
check [ "$(grep -c "key 'first'" io/out)" -eq 0 ]
check grep -q 'hash index' io/out
index=$(ls hurt/b/kist.index.*)
printf '\377\377\377\377\377\377\377\377' | dd of="$index" bs=1 seek=64 conv=notrunc 2>/dev/null
run inspect hurt b
status 4
check grep -q 'root leads out of the file' io/err
: >"$index"
: >$heap
run inspect hurt b
status 4
check grep -q 'ends too early' io/err

t a directory that leads to one block again and again comes to an end
rm -rf hurt
cp -r s hurt
index=$(ls hurt/b/kist.index.*)
head -c 64 "$index" >io/header
# A root of depth 18 at 128; entries that differ, for one block of 2^14 buckets there.
printf '\222\0\0\0\0\0\0\0' >io/root
printf '\016\040\0\0\0\0\0\0\116\040\0\0\0\0\0\0' >io/entries
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; do
    cat io/entries io/entries >io/twice
    mv io/twice io/entries
done
{
    cat io/header io/root
    head -c 56 /dev/zero
    cat io/entries
} >"$index"
timeout 20 "$KIST" inspect hurt b >io/out 2>io/err
check [ $? -eq 4 ]
check grep -q 'again and again' io/err

t random bytes in the files lead to no crash and no endless output
n=0
while [ $n -lt 60 ]; do
    rm -rf hurt
    mkdir hurt
    cp s/kist.store hurt
    cp -r s/b hurt
    cp -r o/o hurt
    for f in hurt/b/kist.heap.1 hurt/b/kist.index.* hurt/o/kist.index.*; do
        head -c 8 /dev/urandom | dd of="$f" bs=1 seek=$((n * 8)) conv=notrunc 2>/dev/null
        head -c 3 /dev/urandom | dd of="$f" bs=1 seek=$((2048 + n)) conv=notrunc 2>/dev/null
    done
    for bank in b o; do
        call="kist inspect, bank $bank, case $n"
        timeout 20 "$KIST" inspect hurt $bank >io/out 2>io/err
        got=$?
        check [ "$got" -eq 0 -o "$got" -eq 4 ]
        check [ "$(wc -c <io/out)" -lt 3000000 ]
    done
    n=$((n + 1))
done

finish
