#!/bin/sh
# What is handed over: two builds in different folders have the same bytes; make
# install and uninstall; programs that find the library by pkg-config and by CMake;
# and the Debian packages.
#
# usage: install_test.sh SOURCES
set -u
sources=$(cd "$1" && pwd) || exit 1
umask 022
LC_ALL=C.UTF-8 KIST_NO_INSTALL=1
export LC_ALL KIST_NO_INSTALL
unset DESTDIR MAKEFLAGS MAKELEVEL CFLAGS LDFLAGS

tmp=$(mktemp -d "${TMPDIR:-/var/tmp}/kist-install.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

checks=0 faults=0
check() { # COMMAND...: it must succeed
    checks=$((checks + 1))
    "$@" >"$tmp/said" 2>&1 && return
    faults=$((faults + 1))
    echo "FAULT: $*"
    tail -n 20 "$tmp/said" | sed 's/^/  /'
}
says() { # TEXT COMMAND...
    text=$1
    shift
    checks=$((checks + 1))
    said=$("$@" 2>&1)
    [ "$said" = "$text" ] && return
    faults=$((faults + 1))
    echo "FAULT: $* said '$said', not '$text'"
}
finish() {
    echo "$checks checks, $faults faults"
    [ "$faults" -eq 0 ]
    exit
}

# The sources as they are here, in a folder of that name.
take_sources() {
    mkdir -p "$1"
    if git -C "$sources" rev-parse --git-dir >/dev/null 2>&1; then
        (cd "$sources" && git ls-files -z -co --exclude-standard) >"$tmp/names"
    else
        (cd "$sources" && find . -name build -prune -o -type f -print0) >"$tmp/names"
    fi
    tar -C "$sources" --null -T "$tmp/names" --ignore-failed-read -cf - 2>"$tmp/said" | tar -C "$1" -xf -
}
names() {
    (cd "$1" && find . | sort)
}

# ---- two builds ---------------------------------------------------------------

one=$tmp/one two=$tmp/another/folder/two
take_sources "$one"
take_sources "$two"
for folder in "$one" "$two"; do
    check make -C "$folder"
    check make -C "$folder" install "DESTDIR=$folder.root" PREFIX=/usr
done
check diff -r --no-dereference "$one.root" "$two.root"
check [ "$(names "$one.root" | wc -l)" -gt 40 ]
check sh -c "! grep -rlF '$tmp' '$one.root'"

# ---- what was installed ---------------------------------------------------------

root=$one.root
lib=$(dirname "$(find "$root" -name libkist.so.0)")
for file in bin/kist include/kist/kist.h share/man/man1/kist.1 share/man/man1/kist-load.1 \
    share/man/man3/libkist.3 share/man/man3/kist_get.3 share/man/man5/kist.5 \
    share/bash-completion/completions/kist; do
    check test -s "$root/usr/$file"
done
for file in libkist.a libkist.so pkgconfig/kist.pc cmake/kist/kist-config.cmake; do
    check test -s "$lib/$file"
done
version=$("$sources/scripts/version")
says "kist $version" "$root/usr/bin/kist" --version
says "${version%%.*}" sh -c "readelf -d '$lib/libkist.so' | sed -n 's/.*SONAME.*libkist.so.\(.*\)\]/\1/p'"

# A program of somebody else's.
cat >"$tmp/user.c" <<'END'
#include <kist/kist.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    kist_store *store;

    if (strcmp(kist_version(), KIST_VERSION_STRING) != 0)
        return 1;
    puts(kist_errname(kist_store_open(&store, "nowhere", NULL)));
    return 0;
}
END
PKG_CONFIG_PATH=$lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 \
    PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR PKG_CONFIG_ALLOW_SYSTEM_CFLAGS PKG_CONFIG_ALLOW_SYSTEM_LIBS
cd "$tmp" || exit 1
says "$version" pkg-config --modversion kist
# shellcheck disable=SC2046
check cc -o by-pkg-config user.c $(pkg-config --cflags --libs kist) -Wl,-rpath,"$lib"
says -2 ./by-pkg-config
# shellcheck disable=SC2046
check cc -o by-static user.c $(pkg-config --cflags kist) "$lib/libkist.a" $(pkg-config --static --libs-only-l kist | sed 's/-lkist//')
says -2 ./by-static

if command -v cmake >/dev/null; then
    mkdir cmake-user
    cp user.c cmake-user
    cat >cmake-user/CMakeLists.txt <<END
cmake_minimum_required(VERSION 3.13)
project(user C)
find_package(kist ${version%.*} REQUIRED)
add_executable(shared user.c)
target_link_libraries(shared PRIVATE kist::kist)
add_executable(static user.c)
target_link_libraries(static PRIVATE kist::static)
END
    check cmake -S cmake-user -B cmake-build -Dkist_ROOT="$root/usr" -DCMAKE_PREFIX_PATH="$root/usr" -DCMAKE_LIBRARY_ARCHITECTURE="$(basename "$lib")"
    check cmake --build cmake-build
    says -2 cmake-build/shared
    says -2 cmake-build/static
    sed -i "s/find_package(kist [0-9.]*/find_package(kist 9.9/" cmake-user/CMakeLists.txt
    check sh -c "! cmake -S cmake-user -B cmake-other -DCMAKE_PREFIX_PATH='$root/usr'"
else
    echo 'skipped: CMake is not here'
fi

# ---- uninstall -------------------------------------------------------------------

echo mine >"$root/usr/bin/other"
check make -C "$one" uninstall "DESTDIR=$root"
says "$root/usr/bin/other" find "$root" -type f
says '' find "$root" -type l

# ---- Debian ------------------------------------------------------------------------

if ! command -v dpkg-buildpackage >/dev/null || ! command -v dh >/dev/null; then
    echo 'skipped: the tools that build Debian packages are not here'
    finish
fi
rm -rf "$two/build"
cd "$two" || exit 1
says "$version" dpkg-parsechangelog -S Version
check dpkg-buildpackage -us -uc -b -d
cd ..
for package in libkist0 libkist-dev kist; do
    check dpkg -x "$(find . -name "${package}_*.deb")" deb
    # shellcheck disable=SC2016
    says "$package $version" dpkg-deb -W --showformat '${Package} ${Version}' "$(find . -name "${package}_*.deb")"
done
says "kist $version" deb/usr/bin/kist --version
dpkg -c "$(find . -name 'libkist0_*.deb')" >names
check sh -c "grep -q 'libkist.so.$version' names && ! grep -q 'kist.h\|bin/' names"
# Together they have what make install has, but that papers are packed.
(cd deb/usr && find . ! -type d | sed 's/\.gz$//' | grep -v share/doc | sort) >packed
(cd "$two.root/usr" && find . ! -type d | sort) >installed
check diff installed packed
finish
