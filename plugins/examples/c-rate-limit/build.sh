#!/usr/bin/env bash
# Builds rate-limit.wasm from the C in src/ and the world in wit/. Installs nothing: says what is missing, and how to get it.
#
#   build.sh           tests, builds, and puts the component beside this script
#   build.sh --check   tests, builds, and fails unless the checked-in component has the same bytes
#
# Other programs than those on the path: ZIG, WIT_BINDGEN, WASM_TOOLS, CC. What is made on the way lies in target/c-rate-limit.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
made=$root/target/c-rate-limit

# Other versions make components that do the same, of other bytes.
zig_version=0.17.1
wit_bindgen_version=0.61.1
wasm_tools_version=1.263.0

fail() {
    echo "$*" >&2
    exit 1
}

case ${1-} in
"" | --check) ;;
*) fail "what is $1? Either build.sh, or build.sh --check" ;;
esac

find_zig() {
    if [ -n "${ZIG-}" ]; then
        read -ra zig <<<"$ZIG"
    elif command -v zig >/dev/null; then
        zig=(zig)
    elif command -v python-zig >/dev/null; then
        zig=(python-zig)
    else
        zig=(python3 -m ziglang)
    fi
}
find_zig
wit_bindgen=${WIT_BINDGEN-wit-bindgen}
wasm_tools=${WASM_TOOLS-wasm-tools}

missing=0
# Whether a program is there, and of the version that the checked-in component was built with.
need() {
    local what=$1 version=$2 install=$3 found
    shift 3
    if ! found=$("$@" 2>/dev/null); then
        echo "$what $version is missing; to get it: $install" >&2
        missing=1
    elif [[ " $found " != *" $version "* ]]; then
        echo "$what is ${found%%$'\n'*}, not $version; to get that: $install" >&2
        # Good enough to build with, but not to compare.
        if [ "${check-}" = yes ]; then missing=1; fi
    fi
}
if [ "${1-}" = --check ]; then check=yes; fi
need "zig (a C compiler for wasm32)" "$zig_version" "pip install ziglang==$zig_version" "${zig[@]}" version
need wit-bindgen "$wit_bindgen_version" \
    "cargo install wit-bindgen-cli --version $wit_bindgen_version --locked --debug --no-default-features --features c" \
    "$wit_bindgen" --version
need wasm-tools "$wasm_tools_version" \
    "cargo install wasm-tools --version $wasm_tools_version --locked --debug --no-default-features --features component,validate" \
    "$wasm_tools" --version
if ! command -v "${CC-cc}" >/dev/null; then
    echo "${CC-cc} (a C compiler for this machine, for the tests) is missing; to get it on Debian: apt-get install gcc libc6-dev" >&2
    missing=1
fi
[ "$missing" -eq 0 ] || exit 1

rm -rf "$made"
mkdir -p "$made/wit/deps/conclave-plugin"

# 0. What needs no tree is tested on this machine.
"${CC-cc}" -std=c11 -O1 -Wall -Wextra -Wconversion -Werror -fsanitize=undefined -fno-sanitize-recover -I "$here/src" \
    "$here"/src/{bucket,cbor,text}.c "$here/tests/tests.c" -o "$made/tests"
"$made/tests"

# 1. The world, with the package that it takes its interfaces from where the tools look for it.
cp "$here/wit/world.wit" "$made/wit/"
cp "$root"/wit/*.wit "$made/wit/deps/conclave-plugin/"

# 2. Its bindings in C: limiter.h, limiter.c, and an object file that tells step 4 the world's types.
"$wit_bindgen" c "$made/wit" --world limiter --out-dir "$made/bindings"

# 3. A core module. No operating system, no C library: what there is of one is src/libc. Paths are cut off, so that they
#    are not in the bytes.
(
    cd "$made"
    export ZIG_GLOBAL_CACHE_DIR=$root/target/zig-cache ZIG_LOCAL_CACHE_DIR=$root/target/zig-cache
    "${zig[@]}" cc --target=wasm32-freestanding -std=c11 -Os -flto -g0 -ffreestanding -fno-builtin \
        -Wall -Wextra -Werror -fno-sanitize=undefined "-ffile-prefix-map=$root=." \
        -isystem "$here/src/libc" -isystem bindings \
        "$here"/src/*.c "$here/src/libc/libc.c" bindings/limiter.c bindings/limiter_component_type.o \
        -nostdlib -Wl,--no-entry -Wl,--strip-all -Wl,-z,stack-size=16384 -o core.wasm
)

# 4. The component, and the manifest in it: a custom section that the host reads without running anything.
"$wasm_tools" component new "$made/core.wasm" -o "$made/component.wasm"
python3 - "$made/component.wasm" "$here/plugin.toml" "$made/rate-limit.wasm" <<'PYTHON'
import sys

def leb128(number):
    low, rest = number & 0x7F, number >> 7
    return bytes([low]) if rest == 0 else bytes([low | 0x80]) + leb128(rest)

component, manifest = (open(name, "rb").read() for name in sys.argv[1:3])
name = b"conclave:manifest"
section = leb128(len(name)) + name + manifest
open(sys.argv[3], "wb").write(component + b"\0" + leb128(len(section)) + section)
PYTHON

# 5. Valid, and of this world alone: its imports and exports, and the types that they speak of.
"$wasm_tools" validate "$made/rate-limit.wasm"
interfaces() { sed -nE 's,^  ((import|export) .*);$,\1,p' | sort; }
{
    echo "  import conclave:plugin/types@0.1.0;"
    cat "$here/wit/world.wit"
} | interfaces >"$made/wanted"
"$wasm_tools" component wit "$made/rate-limit.wasm" | interfaces >"$made/actual"
diff "$made/wanted" "$made/actual" || fail "rate-limit.wasm has other imports and exports (>) than its world (<)"

if [ "${check-}" = yes ]; then
    cmp "$made/rate-limit.wasm" "$here/rate-limit.wasm" || fail "rate-limit.wasm is not what its sources make: run build.sh"
    echo "rate-limit.wasm is what its sources make"
else
    cp "$made/rate-limit.wasm" "$here/rate-limit.wasm"
    echo "rate-limit.wasm  $(wc -c <"$here/rate-limit.wasm") bytes"
fi
