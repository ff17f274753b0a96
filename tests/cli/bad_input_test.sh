#!/bin/sh
# What is wrong has its exit status and one sentence, and changes nothing.
. "$(dirname "$0")/lib.sh"

run create s b
run put s b k v
status 0
picture s ! -name kist.live >before

unchanged() {
    picture s ! -name kist.live >after
    check cmp -s before after
}

# ---- the command line ----------------------------------------------------

t a wrong command line is exit status 2 and a hint
run
status 2
err 'kist help'
run gte s b k
status 2
err 'did you mean get'
run frobnicate
status 2
err 'kist help'
run --json get s b k
status 2
err 'verb comes first'
run get s b k --jsno
status 2
err 'did you mean --json'
run get s b k --jsno=1
status 2
err 'did you mean --json'
run put s b k v --json # it prints no facts
status 2
err "no option '--json'"
run get s b -k
status 2
err '--'
run get s k
status 2
err 'STORE BANK KEY'
run get
status 2
run put s k
status 2
err 'STORE BANK KEY'
run get s b k too many
status 2
err "'too'"
run help nothing
status 2
run load s b s
status 2
err --files
run load s b --files
status 2
err DIR
run get s b k --json=yes
status 2
err 'takes no value'
run create s x --expect 1 --expect 2
status 2
err twice
run get s b k --key-base64
status 2
err base64
run get s b 'a$==' --key-base64
status 2
unchanged

t a wrong value of an option is exit status 2
for option in --durability=sometimes --verify=maybe --interval=5 --expect=-1 --expect=many \
    --expect=1x --expect= '--expect= 1' --expect=+1 --expect=99999999999999999999 \
    --segment-bytes=5000 --segment-bytes=2K --segment-bytes=2G --segment-bytes=64X \
    --segment-bytes=64MB --segment-bytes=-4K --segment-bytes=9999999999G --mode=9 --mode=0400 \
    --mode=1777 --mode=rw --deadline=-2 --deadline=x; do
    run create s x "$option"
    status 2
    err "${option%%=*}"
done
run create s x --durability=interval --interval=0
status 2
run create s2 --durability=always # a store has none
status 2
err BANK
check [ ! -e s2 ]
unchanged

# ---- names of banks ------------------------------------------------------

t a bad bank name is exit status 2
part=$(printf '%255s' | tr ' ' a)
long=$part/$part/$part/$part # 1,023 bytes
for bank in '' . .. ../b a/.. a/../b a/./b /a /etc a/ a//b / kist.b kist. a/kist.bank \
    "a$part" "$long/b"; do
    run create s "$bank"
    status 2
    check [ "$(wc -l <io/err)" -eq 1 ]
    run put s "$bank" k v --create
    status 2
    run get s "$bank" k
    status 2
    run drop s "$bank"
    status 2
done
unchanged
run create names "$long"
status 0
run ls names
out "$long"

t a path that leads elsewhere is refused
run create paths inner
run put paths inner k v
mkdir outside
run create outside/store inner
mkfifo paths/fifo
: >paths/file
ln -s inner paths/link
ln -s ../outside/store/inner paths/far
picture paths >before-paths
for bank in link link/b far far/b fifo fifo/b file file/b; do
    run put paths "$bank" k v
    status 3
    err paths
    run create paths "$bank"
    status 3
    run get paths "$bank" k
    status 3
    run drop paths "$bank"
    status 3
done
picture paths >after-paths
check cmp -s before-paths after-paths
run ls paths
out inner

# ---- stores --------------------------------------------------------------

t a directory that is no store is exit status 3
mkdir empty
for store in empty missing missing/er s/kist.store; do
    for verb in 'get STORE b k' 'put STORE b k v' 'ls STORE' 'stat STORE' 'verify STORE' \
        'drop STORE b' 'clear STORE b' 'repair STORE b' 'compact STORE'; do
        # shellcheck disable=SC2086
        run $(echo "$verb" | sed "s,STORE,$store,")
        status 3
        err "$store"
    done
done
check [ -z "$(ls empty)" ]
check [ ! -e missing ]
run create s/kist.store
status 3
run load s b --files missing
status 3
err missing
run load s b --files s/kist.store
status 3
unchanged

t a bank that is missing is exit status 3
for verb in 'get s none k' 'has s none k' 'put s none k v' 'del s none k' 'ls s none' \
    'stat s none' 'verify s none' 'repair s none' 'compact s none' 'clear s none' 'drop s none' \
    'load s none --files empty'; do
    # shellcheck disable=SC2086
    run $verb
    status 3
    err "'none'"
done
unchanged

t a store whose file is not kist\'s is exit status 4
mkdir odd
head -c 4096 /dev/zero | tr '\0' x >odd/kist.store
run ls odd
status 4
err kist.store
run create odd b
status 4
: >odd/kist.store
run ls odd
check [ "$got" -ge 3 ]

t a bank whose file is not kist\'s is exit status 4, and others are still told of
run create mixed a
run create mixed b
run create mixed c
head -c 4096 /dev/zero | tr '\0' x >mixed/b/kist.bank
run get mixed b k
status 4
err "'b'"
run verify mixed
status 4
check grep -q "'a'" io/out
check grep -q "'c'" io/out
run put mixed c k v
status 0

# ---- sizes ---------------------------------------------------------------

t a key over 65,535 bytes is refused
key=$(printf '%65536s' x)
run put s b "$key" v
status 2
run get s b "$key"
status 2
run del s b "$key"
status 2
unchanged

t a value of 4,294,967,295 bytes is refused before it is read
if truncate -s 4294967295 huge 2>/dev/null; then
    run put s b k <huge
    status 2
    err 4294967294
    mkdir huge-files
    mv huge huge-files
    run create hs b
    run load hs b --files huge-files
    status 3
    check grep -q '1 skipped' io/out
    rm -r huge-files
else
    skip 'no sparse files here'
fi
unchanged

# ---- the system says no --------------------------------------------------

t a closed or full standard output is exit status 3
"$KIST" get s b k >&- 2>io/err
got=$? call='get to a closed standard output'
status 3
err 'standard output'
"$KIST" get s b k >/dev/full 2>io/err
got=$? call='get to /dev/full'
status 3
err 'standard output'
"$KIST" ls s >/dev/full 2>io/err
got=$? call='ls to /dev/full'
status 3
run create p b
head -c 1000000 /dev/zero | "$KIST" put p b large
{
    "$KIST" get p b large 2>io/err
    echo $? >io/status
} | :
got=$(cat io/status) call='get to a pipe that nobody reads'
status 3
check [ ! -s io/err ]
"$KIST" put s b k v >&- # prints nothing, so it needs none
got=$? call='put with a closed standard output'
status 0
"$KIST" get s b none 2>&-
got=$? call='get with a closed standard error'
status 1

t a closed standard input is exit status 3
"$KIST" put s b k <&- 2>io/err
got=$? call='put from a closed standard input'
status 3
err 'standard input'
run put s b k <.
status 3
err 'standard input'
"$KIST" get s b k <&- >io/out 2>&1
got=$? call='get with a closed standard input'
status 0
out v

t a file size limit is exit status 3, and nothing is changed
run create limited b
run put limited b k v
head -c 2000000 /dev/zero >two-mb
(
    ulimit -f 128 || exit 3
    "$KIST" put limited b k <two-mb 2>io/err
)
got=$? call='put beyond ulimit -f'
status 3
err "'b'"
run get limited b k
out v

t what one may not read or write is exit status 3
if nobody true 2>/dev/null && [ "$(id -u)" -eq 0 ]; then
    cp "$KIST" kist-copy
    as_nobody() {
        call="as nobody: kist $*"
        nobody ./kist-copy "$@" >io/out 2>io/err
        got=$?
    }
    chmod 777 io
    as_nobody get s b k # 0700, another's
    status 3
    err 'Permission denied'
    as_nobody create s/x
    status 3
    run create open b --mode 0644
    run put open b k v
    picture open >before-open
    as_nobody get open b k
    status 0
    out v
    as_nobody put open b k w
    status 3
    err "open"
    as_nobody create open c
    status 3
    as_nobody drop open b
    status 3
    as_nobody clear open b
    status 3
    picture open >after-open
    check cmp -s before-open after-open
else
    skip 'needs root and setpriv'
fi

# In a mount namespace of our own: a small file system, filled, then read-only.
t a full disk and a read-only file system are exit status 3
cat >mounted.sh <<'EOF'
mount -t tmpfs -o size=1m none mounted || exit 77
"$KIST" create mounted/s b && "$KIST" put mounted/s b k v || exit 1
head -c 3000000 /dev/zero | "$KIST" put mounted/s b large 2>io/err && exit 2
[ $? -eq 3 ] || exit 3
grep -q "'b'" io/err || exit 4
[ "$("$KIST" get mounted/s b k)" = v ] || exit 5
"$KIST" del mounted/s b k || exit 6
"$KIST" put mounted/s b k v || exit 7
mount -o remount,ro mounted || exit 77
"$KIST" put mounted/s b k w 2>io/err && exit 8
[ $? -eq 3 ] || exit 9
"$KIST" create mounted/other 2>io/err && exit 10
[ $? -eq 3 ] || exit 11
[ "$("$KIST" get mounted/s b k)" = v ] || exit 12
"$KIST" verify mounted/s >/dev/null || exit 13
EOF
mkdir mounted
if [ "$(id -u)" -eq 0 ] && unshare -m true 2>/dev/null; then
    export KIST
    unshare -m sh mounted.sh
    got=$? call='mounted.sh, whose exit status tells the line'
    if [ $got -eq 77 ]; then skip 'cannot mount'; else status 0; fi
else
    skip 'needs root and mount namespaces'
fi

finish
