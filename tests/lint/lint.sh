#!/bin/bash
# What `make lint` checks, one function each. Every finding is printed; exit status 1 when there is any.
#
#   tests/lint/lint.sh BUILD [CHECK...]     BUILD holds the built library; CHECK: only these functions
set -u
cd "$(dirname "$0")/../.." || exit

build=${1:?build directory}
shift
maximum_lines=600
findings=0

find_in() { find "$@" -name .git -prune -o -type f -print 2>/dev/null | sort; }
c_files() { find_in shim include examples tests | grep -E '\.[ch]$'; }

# finding TEXT: print it and remember that there was one.
finding() {
    echo "lint: $*"
    findings=$((findings + 1))
}

formatting() {
    c_files | xargs clang-format --dry-run -Werror || finding "clang-format -i would change the files above"
}

# The design's house: a file includes headers of its own and lower floors only; the command uses floors 1 to 5.
floors() {
    local floor allowed='' order="base bounce checksum files engine rings entry" bad
    for floor in $order cli; do
        if [ "$floor" = cli ]; then allowed="base|bounce|checksum|files|engine|cli"; else allowed="${allowed:+$allowed|}$floor"; fi
        [ -d "shim/$floor" ] || continue
        bad=$(grep -rnE '^ *# *include *"' "shim/$floor" | grep -vE "\"($allowed)/[a-z0-9_]+\.h\"|\"bounceio\.h\"")
        [ -z "$bad" ] || finding "shim/$floor includes what is not on its floor or below:"$'\n'"$bad"
    done
}

# The table of wrapped symbols, the version script made from it, and what the library really exports are one list.
exports() {
    local table exported
    table=$(sed 's/.*global://; s/local:.*//' "$build/shim.map" | tr -d ' \n' | tr ';' '\n' | grep -v '\*' | sort)
    exported=$(nm -D --defined-only "$build/libbounceshim.so" | awk '{ print $3 }' | grep -v '^bounceio_' | sort)
    local name
    for name in $(comm -23 <(echo "$table") <(echo "$exported")); do
        finding "$name is in shim/base/symbols.h, but the library does not define it"
    done
    for name in $(comm -13 <(echo "$table") <(echo "$exported")); do
        finding "$name is exported, but not in shim/base/symbols.h"
    done
    # The other way round for the public interface: what the header declares is exported.
    for name in $(grep -v '^typedef' include/bounceio.h | grep -ohE '\bbounceio_[a-z_]+\(' | tr -d '(' | sort -u); do
        nm -D --defined-only "$build/libbounceshim.so" | grep -q " $name\$" ||
            finding "include/bounceio.h declares $name, but the library does not export it"
    done
}

# All code that the fault guard may unwind lies in guarded_text, and calls nothing outside of it.
guarded_text() {
    local object
    for object in "$build"/obj/shim/checksum/block_hash_*.o "$build"/obj/shim/checksum/sum_copy_*.o; do
        readelf -SW "$object" | sed 's/^ *\[ *[0-9]*\] *//' |
            awk '$7 ~ /X/ && $1 != "guarded_text" && $5 !~ /^0+$/ { exit 1 }' || finding "$object has code outside guarded_text"
        [ -z "$(nm -u "$object")" ] || finding "$object calls out of its section: $(nm -u "$object" | xargs)"
    done
}

lengths() {
    local file lines
    for file in $(git ls-files); do
        [ -f "$file" ] || continue
        lines=$(wc -l <"$file")
        [ "$lines" -le "$maximum_lines" ] || finding "$file has $lines lines (at most $maximum_lines)"
    done
}

# What belongs at the top: leftovers of a tool that was run there do not.
top_level() {
    local entry
    for entry in $(git ls-files | cut -d/ -f1 | sort -u); do
        case $entry in
        shim | include | tests | examples | Makefile | bounceio.pc.in | README.md | LICENSE | .*) ;;
        *) finding "$entry does not belong at the top level" ;;
        esac
    done
}

unfinished() {
    local found
    found=$(git grep -nwE 'TODO|FIXME|XXX' -- . ':!tests/lint/lint.sh')
    [ -z "$found" ] || finding "unfinished:"$'\n'"$found"
}

# Every header compiles by itself, the public one as C++ too.
headers() {
    local header
    for header in $(find_in shim include | grep '\.h$'); do
        "${CC:-cc}" -std=gnu11 -D_GNU_SOURCE -Ishim -Iinclude -Wall -Wextra -Werror -fsyntax-only -x c "$header" ||
            finding "$header does not compile by itself"
    done
    for header in include/*.h; do
        "${CC:-cc}" -std=c99 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c "$header" ||
            finding "$header is not C99"
        g++ -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ "$header" || finding "$header is not C++11"
    done
}

# block_hash.c and sum_copy_loop.c are left out: they are the xxhash library's code, and compiled with flags of their own.
analysis() {
    find_in shim examples | grep '\.c$' | grep -vE '/(block_hash|sum_copy_loop)\.c$' | xargs -P "$(nproc)" -n 4 sh -c \
        'clang-tidy --quiet "$@" -- -std=gnu11 -D_GNU_SOURCE -Ishim -Iinclude 2>/dev/null' clang-tidy ||
        finding "clang-tidy has the findings above"
}

# Scripts that source others are read one at a time: names that come from, or go to, another file are not findings.
scripts() {
    local scripts
    mapfile -t scripts < <(echo .ci/run; echo .ci/deps; find_in tests | grep '\.sh$')
    shellcheck --shell=bash --severity=warning --exclude=SC2034,SC2154 "${scripts[@]}" ||
        finding "shellcheck has the findings above"
}

# The manual pages are well-formed (which others are installed does not matter), and name every variable, counter, command and option there is.
manuals() {
    local found name command
    found=$(mandoc -Tlint shim/man/*.[17] 2>/dev/null | grep -v 'referenced manual not found')
    [ -z "$found" ] || finding "mandoc -Tlint says:"$'\n'"$found"
    for name in $(sed -n 's/^    {"\([A-Z_]*\)", read_.*/\1/p' shim/base/config.c | grep -v '^TEST_'); do
        grep -q "^\.It Ev .*BOUNCEIO_$name\b" shim/man/libbounceshim.7 || finding "libbounceshim(7) does not explain BOUNCEIO_$name"
    done
    for name in $(sed -n 's/^    X(\([a-z_]*\)).*/\1/p' shim/base/stats.h); do
        grep -q "^\.It Va .*\b$name\b" shim/man/libbounceshim.7 || finding "libbounceshim(7) does not explain $name"
    done
    for command in $("$build/bounceio" --help | sed -n 's/^  \([a-z]*\)  *[a-z].*/\1/p'); do
        grep -q "^\.Ss bounceio $command\$" shim/man/bounceio.1 || finding "bounceio(1) does not explain $command"
        for name in $("$build/bounceio" "$command" --help | grep -oE -- '--[a-z][a-z-]*' | sort -u); do
            [ "$name" = --help ] || grep -qE "(Fl |, )-?-?${name#-}\\b" shim/man/bounceio.1 ||
                finding "bounceio(1) does not explain $command $name"
        done
    done
}

[ $# -gt 0 ] || set -- formatting floors exports guarded_text lengths top_level unfinished headers analysis manuals scripts
for check in "$@"; do
    before=$findings
    "$check"
    [ "$findings" -ne "$before" ] || echo "  ok	$check"
done
[ "$findings" -eq 0 ]
