#!/usr/bin/env bash
# All that needs a GPU: builds for this machine's, runs the tests on it, looks for bad memory accesses and races on
# small cases, and measures docs/gpu.md's table into a JSON file, beside what a plain read and cuBLAS reach on
# the same GPU.
#
#   tests/gpu.sh [FOLDER]     results go to FOLDER (default: build/gpu)
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-build/gpu}

command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU || {
    echo 'tests/gpu.sh: skipped: there is no GPU here'
    exit 0
}
command -v nvcc >/dev/null || { echo 'tests/gpu.sh: skipped: there is a GPU but no nvcc'; exit 0; }

mkdir -p "$out"

step() {
    printf '\n== %s (%d s)\n' "$*" "$SECONDS"
}
failed=
note() { # NAME STATUS
    [ "$2" = 0 ] || { failed="$failed $1"; echo "FAILED: $1 ($2)"; }
}
jobs=-j$(nproc)
arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
[ "$arch" = 90 ] && arch=90a
B=build/release

step "Build for sm_$arch"
make $jobs CUDA=1 CUDA_ARCHS="$arch" $B/quoll $B/libquoll-cuda.so $B/run-tests-kernels $B/run-tests-model >"$out/build.log" 2>&1
rc=$?
note build $rc
[ $rc = 0 ] || { tail -n 30 "$out/build.log"; exit 1; }
nvidia-smi | tee "$out/nvidia-smi.txt" | head -n 15

step 'Every operator and every golden model against the CPU: --exact to the bit, the default within rounding'
export QUOLL_TEST_CUDA=1 QUOLL_BIN=$B/quoll CK_TIMEOUT_MULTIPLIER=4
CK_RUN_SUITE='cuda operators' timeout 120 $B/run-tests-kernels 2>&1 | tail -n 20 | tee "$out/operators.txt"
note operators "${PIPESTATUS[0]}"
CK_RUN_SUITE='cuda forward' timeout 150 $B/run-tests-model 2>&1 | tail -n 20 | tee "$out/models.txt"
note models "${PIPESTATUS[0]}"

step 'The same text twice'
model=$(ls tests/golden/gguf/*/model.gguf ../shared/golden/gguf/quant-q4_k/model.gguf 2>/dev/null | tail -n 1)
for i in 1 2; do
    $B/quoll logits -m "$model" --device cuda -p 'Hello, world' >"$out/logits.$i" 2>>"$out/errors.txt"
done
cmp "$out/logits.1" "$out/logits.2"
note repeatable $?

if command -v compute-sanitizer >/dev/null; then
    step 'compute-sanitizer'
    for tool in memcheck racecheck; do
        : >"$out/$tool.txt"
        for tests in rows 'not exact'; do
            CK_FORK=no CK_RUN_SUITE='cuda operators' CK_RUN_CASE=$tests timeout 60 \
                compute-sanitizer --tool $tool --error-exitcode 9 $B/run-tests-kernels >>"$out/$tool.txt" 2>&1
            note "$tool ($tests)" $?
        done
        timeout 60 compute-sanitizer --tool $tool --error-exitcode 9 \
            $B/quoll run -q -m "$model" --device cuda -p Hello -n 3 --temp 0 >>"$out/$tool.txt" 2>&1
        note "$tool (a model)" $?
        tail -n 2 "$out/$tool.txt"
    done
fi

step 'Limits: a plain read, cuBLAS'
nvcc -O3 -std=c++17 -gencode=arch=compute_$arch,code=sm_$arch -o "$out/limits" tests/cuda/limits.cu -lcublas &&
    "$out/limits" | tee "$out/limits.json"
note limits $?

step 'bench'
# NAME, then options: the rows of docs/gpu.md.
bench() {
    local name=$1
    shift
    if timeout 60 $B/quoll bench --device cuda -o json "$@" >"$out/bench-$name.json" 2>>"$out/errors.txt"; then
        python3 - "$out/bench-$name.json" "$name" <<'PYTHON' || true
import json, sys
for r in json.load(open(sys.argv[1])):
    print(f"{sys.argv[2]:28} pp{r['n_prompt']:<6} tg{r['n_gen']:<5} d{r['n_depth']:<7} seqs {r['n_seqs']:<4}"
          f" {r['avg_ts']:10.1f} tokens/s {r['read_gb_s']:8.1f} GB/s")
PYTHON
    else
        echo "$name: no result ($(tail -n 1 "$out/errors.txt"))"
        failed="$failed bench-$name"
    fi
    [ "$SECONDS" -lt 460 ]
}
for t in q4_0 q4_k q8_0 f16; do
    bench "llama2-7b-$t" --shape "llama2-7b:$t" -p 512,4096 -b 4096 -n 64 -r 2 || break
done
for t in q4_k f16; do # what --exact costs
    bench "llama2-7b-$t-exact" --shape "llama2-7b:$t" -p 512 -n 64 -r 1 --exact || break
done
bench llama3-8b-q4_0-batch --shape llama3-8b:q4_0 -p 0 -n 16 -d 512 --parallel 1,8,32,128 -r 1
bench llama3-8b-32k --shape llama3-8b:q4_0 -p 0 -n 16 -d 32768 -r 1
bench smollm2 --shape smollm2-135m:q4_1 -p 512 -n 128 -r 2

printf '\n%d s' "$SECONDS"
[ -z "$failed" ] || { echo ", failed:$failed"; exit 1; }
echo ', all passed'
