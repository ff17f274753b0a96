#!/bin/sh
# What --json prints is JSON, whatever bytes are in it.
. "$(dirname "$0")/lib.sh"

if ! command -v python3 >/dev/null; then
    t json
    skip 'needs python3'
    exit 77
fi

# Each line of io/out is an object; `fields` prints what the expression makes
# of the list L of them.
fields() {
    python3 -c '
import json, sys, base64
L = [json.loads(line) for line in open("io/out", "rb").read().decode("utf-8").splitlines()]
assert all(isinstance(o, dict) for o in L)
print(eval(sys.argv[1]))' "$1"
}

is() { # EXPRESSION RESULT
    checks=$((checks + 1))
    result=$(fields "$1" 2>&1)
    [ "$result" = "$2" ] || fault "$1 is $result, not $2"
}

run create s b

t get and has tell of an entry
run put s b k v
run get s b k --json
status 0
is 'sorted(L[0])' "['bytes', 'expiry_ns', 'key', 'mtime_ns', 'sequence', 'value']"
is '(len(L), L[0]["key"], L[0]["value"], L[0]["bytes"], L[0]["expiry_ns"])' "(1, 'k', 'v', 1, 0)"
is 'L[0]["mtime_ns"] > 1600000000 * 10**9 and L[0]["sequence"] > 0' True
run has s b k --json
status 0
is '(L[0]["found"], L[0]["bytes"], "value" in L[0])' '(True, 1, False)'
run has s b none --json
status 1
is '(L[0]["key"], L[0]["found"])' "('none', False)"
run get s b none --json
status 1
check [ ! -s io/out ]

t any text comes through
value=$(printf 'quote " back \\ tab \t line\n bell \a del \177 ü € 😀')
run put s b 'key "\' "$value"
run get s b 'key "\' --json
is 'L[0]["value"].encode().hex()' "$(printf %s "$value" | od -An -v -tx1 | tr -d ' \n')"
is 'L[0]["key"]' 'key "\'
is '"value_encoding" in L[0]' False

t bytes that are not UTF-8 come as base64
for n in 1 2 3 4 1000; do
    head -c $n /dev/zero | tr '\0' '\377' >value
    run put s b bytes <value
    run get s b bytes --json
    is 'L[0]["value_encoding"]' base64
    is "base64.b64decode(L[0]['value']) == b'\\xff' * $n" True
done
# Overlong, a surrogate, too high, cut short, alone.
for bytes in '\300\200' '\340\200\200' '\355\240\200' '\364\220\200\200' '\342\202' '\200' 'a\377b'; do
    # shellcheck disable=SC2059
    printf "$bytes" >value
    run put s b bytes <value
    run get s b bytes --json
    is 'base64.b64decode(L[0]["value"]) == open("value", "rb").read()' True
done
head -c 256 /dev/urandom >value
run put s b bytes <value
run get s b bytes --json
is 'base64.b64decode(L[0]["value"]) == open("value", "rb").read()' True
run put s b /w== --key-base64 v
run get s b /w== --key-base64 --json
is '(L[0]["key"], L[0]["key_encoding"])' "('/w==', 'base64')"

t ls gives an object a line
run create s another/one
run ls s --json
is '[o["bank"] for o in L]' "['another/one', 'b']"
run ls s b --json
is 'sorted(o["key"] for o in L)' "['/w==', 'bytes', 'k', 'key \"\\\\']"
is 'all(o["sequence"] > 0 for o in L)' True

t stat, verify, compact and repair tell in JSON
run stat s b --json
is '(L[0]["bank"], L[0]["entries"], L[0]["poisoned"])' "('b', 4, False)"
is 'L[0]["live_bytes"] >= L[0]["payload_bytes"] > 256' True
is 'L[0]["reserved_bytes"] + L[0]["live_bytes"] + L[0]["wasted_bytes"] == L[0]["heap_file_bytes"]' True
run stat s --json
is '[o["bank"] for o in L]' "['another/one', 'b']"
run verify s --json
is '[(o["bank"], o["whole"], o["entries"], o["damaged"]) for o in L]' \
    "[('another/one', True, 0, 0), ('b', True, 4, 0)]"
run compact s b --json
is 'L[0]["wasted_bytes"] <= L[0]["wasted_bytes_before"]' True
run repair s b --json
status 0
is '(L[0]["bank"], L[0]["whole"], L[0]["entries"])' "('b', True, 4)"
t help tells of verbs and options in JSON
run help --json
status 0
is 'len(L) > 10 and {o["verb"] for o in L} >= {"put", "dump", "help"}' True
run help load --json
status 0
is '(L[0]["verb"], L[0]["operands"])' "('load', 'STORE BANK [FILE]')"
is 'sorted(o["option"] for o in L[1:] if o["value"])' "['deadline', 'files']"

t load and copy tell in JSON
mkdir files
echo 1 >files/a
echo 22 >files/b
run load s b --files files --json
is 'L' "[{'bank': 'b', 'files': 2, 'bytes': 5, 'skipped': 0}]"
run dump s b
is 'all({"key", "value", "mtime_ns", "expiry_ns"} <= o.keys() for o in L)' True
is 'len(L)' 6
cp io/out dump
run load s c dump --create --json
is '(L[0]["bank"], L[0]["entries"])' "('c', 6)"
run copy s s2 --json
is '(L[0]["store"], L[0]["copy"], L[0]["banks"], L[0]["entries"])' "('s', 's2', 3, 12)"

finish
