#!/bin/sh
# Every type's generation speed beside the read bandwidth, on random weights of one shape: docs/types.csv and
# docs/types.svg. Called by make bench-types.
#
#   tools/bench_types.sh QUOLL [SHAPE] [options of bench]
set -eu
quoll=$1 shape=${2:-qwen2.5-1.5b}
[ $# -lt 2 ] || shift
shift
set -- "$@"
for type in f16 bf16 q8_0 q6_k q5_k q5_1 q5_0 q4_k q4_1 q4_0 iq4_nl iq4_xs mxfp4 nvfp4 int8z int4z int3z int2z \
    q3_k q2_k iq3_s iq3_xxs iq2_s iq2_xs iq2_xxs iq1_m iq1_s tq2_0 tq1_0; do
    set -- "$@" --shape "$shape:$type"
done
"$quoll" bench -p 0 -n 32 -r 3 --membw -o csv "$@" >docs/types.csv.new
mv docs/types.csv.new docs/types.csv
gnuplot -e "csv='docs/types.csv'" docs/types.gp
echo 'docs/types.csv and docs/types.svg are new'
