# What the tests of the program share. To be read in with `.` by a script that
# gets in KIST the program to test; it ends with `finish`.
#
#   t a sentence          names the case that follows
#   run ARGUMENTS         calls kist; standard input is the script's own
#   status N; out TEXT; err TEXT; silent
#                         what it must have returned, printed, complained of
#   check COMMAND         a command that must succeed

set -u
: "${KIST:?set KIST to the program to test}"
case $KIST in /*) ;; *) KIST=$PWD/$KIST ;; esac
unset CDPATH
here=$(cd "$(dirname "$0")" && pwd)
LC_ALL=C
export LC_ALL
umask 022

tmp=$(mktemp -d "${TMPDIR:-/var/tmp}/kist-cli.XXXXXX") || exit 1
trap 'chmod -R u+rwx "$tmp" 2>/dev/null; rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$tmp"
cd "$tmp" || exit 1
mkdir io

name= call= faults=0 checks=0 skips=0

t() {
    name=$*
}

fault() {
    faults=$((faults + 1))
    printf '%s\n' "FAULT in: $name" "  $*" "  after: $call"
    if [ -s io/err ]; then sed 's/^/  stderr: /; 5q' io/err; fi
}

skip() {
    skips=$((skips + 1))
    echo "skipped: $name ($*)"
}

run() {
    call="kist $(printf '%.300s' "$*")"
    "$KIST" "$@" >io/out 2>io/err
    got=$?
}

status() {
    checks=$((checks + 1))
    [ "$got" = "$1" ] || fault "exit status $got, not $1"
}

# Standard output is exactly this, but for newlines at its end.
out() {
    checks=$((checks + 1))
    [ "$(cat io/out)" = "$1" ] || fault "printed $(head -c 300 io/out), not $1"
}

# One line on standard error, from kist, with this in it.
err() {
    checks=$((checks + 1))
    if [ "$(wc -l <io/err)" -ne 1 ] || ! grep -q '^kist: ' io/err; then
        fault "standard error is not one line from kist"
    elif ! grep -qF -e "$1" io/err; then
        fault "standard error does not say: $1"
    fi
}

silent() {
    checks=$((checks + 1))
    if [ -s io/out ] || [ -s io/err ]; then fault "printed something: $(head -c 300 io/out)"; fi
}

check() {
    checks=$((checks + 1))
    "$@" || fault "this failed: $*"
}

# All that a store has on disk, as text to compare; but for its scratch files
# if these are named, which note who has it open.
picture() {
    (
        cd "$1" || exit
        shift
        find . -type f "$@" -exec cksum {} + | sort
        find . "$@" -exec stat -c '%n %f %s %Y' {} + | sort
    )
}

# As somebody who is not root and owns nothing here.
nobody() {
    if [ "$(id -u)" -ne 0 ]; then
        "$@"
    else
        setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"
    fi
}

finish() {
    if [ "$checks" -eq 0 ]; then fault "nothing was checked"; fi
    echo "$checks checks, $faults faults, $skips skipped"
    [ "$faults" -eq 0 ]
    exit
}
