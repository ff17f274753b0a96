#!/bin/sh
# kist salt: handed on to kist-salt of the Python package.
. "$(dirname "$0")/lib.sh"

PATH=$tmp/bin:/usr/bin:/bin
export PATH
mkdir bin

t without the Python package it is told what brings it
run salt migrate some where
status 3
err 'pip install kist'
run help salt
status 3
err 'pip install kist'

t one that cannot be run is told of
printf '#!/no/such/interpreter\n' >bin/kist-salt
chmod 644 bin/kist-salt
run salt
status 3
err 'cannot run'

cat >bin/kist-salt <<'END'
#!/bin/sh
printf '<%s>' "$@"
cat
exit 4
END
chmod 755 bin/kist-salt

t everything is handed on: arguments, standard input, the exit status
printf 'input' >io/in
run salt migrate --dry-run -- 'a b' '' --json <io/in
status 4
out '<migrate><--dry-run><--><a b><><--json>input'
run salt <io/in
status 4
out '<>input'
run help salt <io/in
out '<--help>input'
run --help
status 0
check grep -q "kist salt" io/out

finish
