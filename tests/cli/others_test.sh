#!/bin/sh
# To LMDB and back, and to Berkeley DB and back, with their own programs:
# mdb_load, mdb_dump, db_load, db_dump.
#
#   KIST_TEST_RECORDS  how many records go there and back; default 20000
. "$(dirname "$0")/lib.sh"
: "${KIST_TEST_RECORDS:=20000}"

for tool in mdb_load mdb_dump db_load db_dump python3; do
    if ! command -v $tool >/dev/null; then
        t others
        skip "needs $tool"
        exit 77
    fi
done

# Random keys of 1 to 511 bytes that all differ, and values, some of them long.
python3 - "$KIST_TEST_RECORDS" >records.dump <<'END'
import random, sys
r = random.Random(1)
print("VERSION=3\nformat=bytevalue\ntype=btree\nHEADER=END")
for i in range(int(sys.argv[1])):
    key = i.to_bytes(4, "big").lstrip(b"\0") + r.randbytes(r.choice((0, 3, 12, 12, 12, r.randrange(500))))
    key = (bytes([len(key) % 251]) + key)[:511]
    value = r.randbytes(r.choice((0, 1, 40, 100, 100, 100, 300)) if i % 1000 else 70000)
    print(" " + key.hex() + "\n " + value.hex())
for key in (b"\\63", b"\\", b"\\\\", b"\n", b" ", b"\0", b"VERSION=3", b"DATA=END"):
    print(" " + (b"special" + key).hex() + "\n " + key.hex())
print("DATA=END")
END
run load s b records.dump --create
status 0

# The entries of a dump of either program, or of kist's, one a line, sorted.
entries() {
    sed '1,/^HEADER=END$/d; /^DATA=END$/d' | paste - - | sort
}
"$KIST" dump s b --for=bdb -q | entries >expected
check [ "$(wc -l <expected)" -ge "$KIST_TEST_RECORDS" ]

same() { # FILE: it holds what the bank holds
    check cmp -s expected "$1"
}

t to LMDB and back
"$KIST" dump s b --for=lmdb -q >to.lmdb
check mdb_load -n -f to.lmdb data.mdb
mdb_dump -n data.mdb >from.lmdb
entries <from.lmdb >got
same got
run load s from-lmdb from.lmdb --create
status 0
"$KIST" dump s from-lmdb --for=bdb -q | entries >got
same got

t to Berkeley DB and back, as tree and as hash
"$KIST" dump s b --for=bdb -q >to.bdb
check db_load -f to.bdb tree.db
check db_load -t hash -f to.bdb hash.db
for kind in tree hash; do
    db_dump $kind.db >from.$kind
    entries <from.$kind >got
    same got
    run load s from-$kind from.$kind --create
    status 0
    "$KIST" dump s from-$kind --for=bdb -q | entries >got
    same got
done
check grep -q '^type=hash$' from.hash

t the kinds of their databases are those of the banks, and the order is LMDB\'s own
for bank in from-lmdb:ordered from-tree:ordered from-hash:hash; do
    run stat s ${bank%:*} --json
    check grep -q "\"index\":\"${bank#*:}\"" io/out
done
"$KIST" dump s from-lmdb --for=lmdb -q >ordered.lmdb
check mdb_load -n -f ordered.lmdb again.mdb
mdb_dump -n again.mdb | sed '1,/^HEADER=END$/d' >got
sed '1,/^HEADER=END$/d' ordered.lmdb >want
check cmp -s want got
"$KIST" dump s from-tree --for=bdb -q >ordered.bdb
check db_load -f ordered.bdb again.db
db_dump again.db | sed '1,/^HEADER=END$/d' >got
check cmp -s want got

t the print form of db_dump, where a backslash is escaped
db_dump -p tree.db >from.print
run load s print from.print --create
status 0
"$KIST" dump s print --for=bdb -q | entries >got
same got

t the print form of mdb_dump is refused where it can be read in two ways
mdb_dump -n -p data.mdb >from.print
run load s refused from.print --create
status 2
err 'dump it again without -p'
check [ ! -e s/refused ]

t dumps of databases with duplicates, and of several, are refused
printf 'VERSION=3\nformat=bytevalue\ntype=btree\nduplicates=1\nHEADER=END\n 6b\n 31\n 6b\n 32\nDATA=END\n' >dup
check db_load -f dup dup.db
db_dump dup.db >from.dup
run load s refused from.dup --create
status 2
err 'several values for a key'
printf 'VERSION=3\nformat=bytevalue\ntype=btree\nHEADER=END\n 6b\n 31\nDATA=END\n' >one
printf 'VERSION=3\nformat=bytevalue\ndatabase=first\ntype=btree\nmapsize=1048576\nHEADER=END\n 6b\n 31\nDATA=END\n' >named
sed s/first/second/ named >named2
check mdb_load -n -f named named.mdb
check mdb_load -n -f named2 named.mdb
mdb_dump -n -a named.mdb >from.named
check grep -q '^database=second$' from.named
run load s refused from.named --create
status 2
err 'another database begins here'
mdb_dump -n -s second named.mdb >from.second
run load s second from.second --create
status 0
run get s second k
out 1
check [ ! -e s/refused ]

t LMDB takes no larger map than it is told of, and kist tells of enough
run create s big
head -c 100000000 /dev/zero | "$KIST" put s big zeros
"$KIST" dump s big --for=lmdb -q >to.big
check mdb_load -n -f to.big big.mdb
check [ "$(mdb_dump -n big.mdb | wc -c)" -gt 200000000 ]

finish
