#!/bin/sh
# The completion of bash: what it offers behind the beginning of a line.
. "$(dirname "$0")/lib.sh"

if ! command -v bash >/dev/null; then
    t completion
    skip 'needs bash'
    exit 77
fi
script=$here/../../completions/kist

# `offers LINE WORDS`: with the cursor at the end of LINE, WORDS are offered.
# bash breaks a line at blanks and at =, which become words of their own.
offers() {
    call="completion of '$1'"
    offered=$(KIST_LINE=$1 bash --norc --noprofile -c '
        . "$1"
        line=${KIST_LINE//=/ = }
        read -r -a COMP_WORDS <<<"$line"
        [[ $KIST_LINE == *" " || $KIST_LINE == *= ]] && [[ $KIST_LINE != *= ]] && COMP_WORDS+=("")
        COMP_WORDS[0]=$2 COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$KIST_LINE
        _kist "$2" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf "%s\n" "${COMPREPLY[@]}"' bash "$script" "$KIST" 2>io/err | sort | tr '\n' ' ')
    checks=$((checks + 1))
    [ "${offered% }" = "$2" ] || fault "offered '${offered% }', not '$2'"
    checks=$((checks + 1))
    [ ! -s io/err ] || fault 'it complained'
}

run create store one
run create store two/three
run create store two/four
mkdir other
touch file.json K N

t verbs
offers 'kist du' dump
offers 'kist c' 'clear compact copy create'
offers 'kist nothing' ''
offers 'kist help rep' repair

t every verb that help lists is offered
"$KIST" help | sed -n 's/^  \([a-z]*\) .*/\1/p' | sort | tr '\n' ' ' >verbs
offers 'kist ' "$(sed 's/ $//' verbs)"

t options of the verb
offers 'kist dump store one --f' --for=
offers 'kist dump --j' --json
offers 'kist get store one --key' --key-base64
offers 'kist get store one --for' ''

t values of options
offers 'kist dump store one --for=' 'bdb json lmdb'
offers 'kist dump store one --for=l' lmdb
offers 'kist dump store one --for l' lmdb
offers 'kist create store x --durability=' 'always interval none'
offers 'kist create store x --verify n' never
offers 'kist create store x --expect=' ''
offers 'kist load store one --files=o' other

t operands
offers 'kist ls st' store
offers 'kist ls store ' 'one two/four two/three'
offers 'kist ls store tw' 'two/four two/three'
offers 'kist dump --for=lmdb store o' one
offers 'kist dump --for lmdb store o' one
offers 'kist dump --json store o' one
offers 'kist get none ' ''
offers 'kist get store one k' ''
offers 'kist ls store o' one # there is a file K, too
offers 'kist load store one f' file.json
offers 'kist batch store one f' file.json
offers 'kist ls store one --pre' --prefix=
offers 'kist ls store one --from=' ''
offers 'kist ls --from=x store o' one
offers 'kist copy store ot' other
offers 'kist snapshot ' 'info restore save'
offers 'kist snapshot s' save
offers 'kist snapshot save st' store
offers 'kist snapshot save store t' 'two/four two/three'
offers 'kist snapshot save store one f' file.json
offers 'kist snapshot info f' file.json
offers 'kist snapshot info st' store
offers 'kist snapshot info store o' one
offers 'kist snapshot info store one f' file.json
offers 'kist snapshot restore --create store tw' 'two/four two/three'
offers 'kist snapshot nothing st' ''
offers 'kist snapshot --c' --create
# shellcheck disable=SC2016
offers 'kist ls $(touch${IFS}pwned) ' ''
check [ ! -e pwned ]

t names of banks are offered quoted, and nothing in them is run
# shellcheck disable=SC2016
for name in '$(touch${IFS}pwned)' '`touch pwned`' 'x;touch pwned' '*' 'new
line'; do
    run create odd "$name"
    status 0
done
# shellcheck disable=SC2016
offers 'kist ls odd ' '$'"'new\nline'"' \$\(touch\$\{IFS\}pwned\) \* \`touch\ pwned\` x\;touch\ pwned'
offers 'kist ls odd x' 'x\;touch\ pwned'
offers 'kist ls odd x\;' 'x\;touch\ pwned'
check [ ! -e pwned ]

finish
