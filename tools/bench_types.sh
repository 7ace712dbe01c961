#!/bin/sh
# Every type's generation speed beside the read bandwidth, on random weights of one shape: docs/types.csv and
# docs/types.svg. Called by make bench-types.
#
#   tools/bench_types.sh QUOLL [SHAPE] [options of bench]
set -eu
quoll=$1 shape=${2:-qwen2.5-1.5b}
[ $# -lt 2 ] || shift
shift
# The bandwidth is measured again beside every type: other work on the machine changes it.
: >docs/types.csv.new
for type in f16 bf16 q8_0 q6_k q5_k q5_1 q5_0 q4_k q4_1 q4_0 iq4_nl iq4_xs mxfp4 nvfp4 int8z int4z int3z int2z \
    q3_k q2_k iq3_s iq3_xxs iq2_s iq2_xs iq2_xxs iq1_m iq1_s tq2_0 tq1_0; do
    first=$([ -s docs/types.csv.new ] && echo 2 || echo 1) # one line of names
    "$quoll" bench -p 0 -n 16 -r 2 --membw -o csv "$@" --shape "$shape:$type" >docs/types.row.new
    tail -n +"$first" docs/types.row.new >>docs/types.csv.new
done
mv docs/types.csv.new docs/types.csv
rm docs/types.row.new
gnuplot -e "csv='docs/types.csv'" docs/types.gp
echo 'docs/types.csv and docs/types.svg are new'
