#!/bin/sh
# What ptxas says of every kernel (nvcc -Xptxas -v): spills are errors, and registers and shared memory must be
# those of the recorded table, ptxas.txt beside this.
#
#   tests/cuda/ptxas.sh check LOG…     compares; with another version of nvcc only spills count
#   tests/cuda/ptxas.sh record LOG…    writes the table anew
set -eu

table=$(dirname "$0")/ptxas.txt
what=$1
shift
now=$(mktemp)
trap 'rm -f "$now" "$now.new"' EXIT

# A line for each kernel: architecture, name, registers, bytes of shared memory, of stack, of spills.
cat "$@" | awk '
    /Compiling entry function/ { split($0, part, "\047"); name = part[2]; arch = part[4] }
    /bytes stack frame/ { stack = $1; spills = $5 + $9 }
    /Used [0-9]+ registers/ {
        registers = shared = 0
        for (i = 1; i < NF; i++) {
            if ($i == "Used") registers = $(i + 1)
            if ($(i + 1) == "bytes" && $(i + 2) ~ /^smem/) shared = $i
        }
        print arch, name, registers, shared, stack, spills
    }' | sed 's/ptxas info//' | while read -r arch name registers shared stack spills; do
        printf '%s %s %s %s %s %s\n' "$arch" "$(c++filt "$name" 2>/dev/null | tr -d ' ' || echo "$name")" \
            "$registers" "$shared" "$stack" "$spills"
    done | sort >"$now"
[ -s "$now" ] || { echo "tests/cuda/ptxas.sh: no kernel in $*" >&2; exit 1; }
version=$(nvcc --version | sed -n 's/.*release.*V//p')

if [ "$what" = record ]; then
    { echo "# nvcc $version"; echo '# architecture kernel registers shared stack spills'; cat "$now"; } >"$table"
    exit 0
fi
if awk '$6 > 0 { print "spills:", $0; bad = 1 } END { exit bad }' "$now"; then :; else
    echo 'tests/cuda/ptxas.sh: a kernel spills registers' >&2
    exit 1
fi
if [ "$(head -n 1 "$table")" != "# nvcc $version" ]; then
    echo "ptxas: no spills in $(wc -l <"$now") kernels; the table is of another nvcc than $version"
    exit 0
fi
grep -v '^#' "$table" | diff - "$now" || {
    echo "tests/cuda/ptxas.sh: these kernels changed: look at them, then 'make cuda-check' after" \
        "'tests/cuda/ptxas.sh record build/cuda-check/cuda/*.log'" >&2
    exit 1
}
echo "ptxas: $(wc -l <"$now") kernels as recorded, no spills"
