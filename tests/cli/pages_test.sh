#!/bin/sh
# kist pages: numbers, strings and dumps of any file.
. "$(dirname "$0")/lib.sh"

# 0: 1, 2, 3 ... 16; 16: "hello\0"; 22: 0xff x 10; then up to 5000 bytes.
printf '\001\002\003\004\005\006\007\010\011\012\013\014\015\016\017\020hello\000' >file
printf '\377\377\377\377\377\377\377\377\377\377' >>file
head -c 4968 /dev/zero | tr '\0' 'x' >>file

t numbers of every kind of bytes
run pages file 0 -q --as=u8
status 0
out '0x0000000000  1'
run pages file 0x1 --as=u16_be -q
out '0x0000000001  515'
run pages file 0 --as u32_le -q
out '0x0000000000  67305985'
run pages file 0 --as=u64_be -q
out '0x0000000000  72623859790382856'
run pages file 0 --as=u128_be -q
out '0x0000000000  1339673755198158349044581307228491536'
run pages file 22 --as=i8 -q
out '0x0000000016  -1'
run pages file 22 --as=i16_ne -q
out '0x0000000016  -1'
run pages file 22 --as=i64_le -q
out '0x0000000016  -1'
run pages file 16 --as=i128_le -q
status 0
check grep -q '^0x0000000010  -' io/out
run pages file 0,4,0x8 --as=u16_le -q
out '0x0000000000  513
0x0000000004  1541
0x0000000008  2569'
run pages file 0 3 --as=u16_be -q
out '0x0000000000  258
0x0000000002  772
0x0000000004  1286'

t strings end with a NUL or where they are told to
run pages file 16 --as=string -q
out '0x0000000010  hello'
run pages file 16 3 --as=string -q
out '0x0000000010  hel'
run pages file 4990 --as=string -q
out '0x000000137e  xxxxxxxxxx'

t a dump shows bytes and text, and ends with the file
run pages file 16 20 -q
out '0x0000000010   68 65 6c 6c 6f 00 ff ff  ff ff ff ff ff ff ff ff  |hello...........|
0x0000000020   78 78 78 78                                       |xxxx|'
run pages file 0x1380 -q
status 0
out '0x0000001380   78 78 78 78 78 78 78 78                           |xxxxxxxx|'

t what the cache did is told
run pages file 0 5000
status 0
check [ "$(tail -n 1 io/out)" = \
    '5000 bytes in pages of 4096: hits 311, misses 2, calls of the device 2, evictions 0' ]
run pages file 0 5000 --page=64 --pages=1 --by=mmap
check grep -q '^5000 bytes in pages of 64: hits 234, misses 79, calls of the device 79, evictions 78$' io/out
run pages file
status 0
out '5000 bytes in pages of 4096: hits 0, misses 0, calls of the device 0, evictions 0'

t every way to read tells the same
run pages file 0 5000 -q
cp io/out by_pread
for by in guarded mmap; do
    run pages file 0 5000 -q --by=$by
    status 0
    check cmp -s io/out by_pread
done

t past the end there is nothing
run pages file 4998 --as=u32_le
status 2
err 'past the end'
run pages file 5000
status 2
err 'past the end'
run pages file 18446744073709551615 --as=u8
status 2
err 'past the end'
run pages file 18446744073709551616
status 2
err 'no address'
: >empty
run pages empty 0
status 2
err 'past the end'

t wrong words are told
run pages file x
status 2
err 'no address'
run pages file -- -1
status 2
err 'no address'
run pages file 0, --as=u8 -q
status 2
err 'no address'
run pages file 0 0
status 2
err 'no count'
run pages file 0 1x
status 2
err 'no count'
run pages file 0 --as=u24
status 2
err 'i32_le'
run pages file 0 --by=magic
status 2
err 'guarded'
run pages file 0 --page=100
status 2
err power
run pages file 0 --pages=8G
status 2
err power
run pages none 0
status 3
err none
run pages . 0
status 2
err 'neither a regular file nor a block device'
mkfifo fifo
run pages fifo 0
status 2
err 'neither a regular file nor a block device'

t JSON tells addresses, types and counters
if command -v python3 >/dev/null; then
    run pages file 0 2 --as=u64_be --json
    status 0
    check python3 -c '
import json
L = [json.loads(line) for line in open("io/out")]
assert [o["address"] for o in L[:2]] == [0, 8]
assert L[0]["value"] == 0x0102030405060708 and L[0]["type"] == "u64_be"
assert (L[2]["hits"], L[2]["misses"], L[2]["device_bytes"]) == (1, 1, 5000)'
    run pages file 22 --as=i64_le --json
    check python3 -c 'import json; assert json.loads(open("io/out").readline())["value"] == -1'
    run pages file 16 --as=i128_le --json
    check python3 -c 'import json; assert int(json.loads(open("io/out").readline())["value"]) < 0'
    run pages file 16 --as=string --json
    check python3 -c 'import json; assert json.loads(open("io/out").readline())["string"] == "hello"'
    run pages file 16 20 --json
    check python3 -c '
import json
assert json.loads(open("io/out").readline())["hex"] == "68656c6c6f00" + "ff" * 10'
else
    skip 'needs python3'
fi

finish
