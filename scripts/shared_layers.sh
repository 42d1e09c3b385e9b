#!/usr/bin/env bash
# ./dev shared [argument of stoker train...]: workers that share layers (tensor) and rows (context), in this machine's memory. A table: the
# layout, the hash of its weights (the same within a class of bits), the loss, and the most memory that a worker took against what
# `--dry-run` says. Exit code 1 when a repetition, with as many or more replicas, has other weights, or when memory is off by more than
# 5 %. Needs `stoker` in build/ (or STOKER) and about 2 GB.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$0")/.."
program=${STOKER:-build/stoker} source=$PWD
. scripts/small_run.sh
place=${STOKER_SHARED_DIR:-build/shared}
rm -rf "$place"
make_small_data "$place" 40
cat >"$place/recipe.toml" <<TOML
[run]
dir = "$place/unused"
[model]
layers = 4
hidden = 512
heads = 8
kv_heads = 4
ffn = 1536
vocab = 8192
[data]
path = "$place/data"
sequence_length = 256
[train]
threads = 1
steps = 3
global_batch = 4
micro_batch = 2
virtual_ranks = 2
TOML
printf '%-28s %8s  %-12s %-10s %9s %9s %6s\n' layout workers weights loss said taken off
status=0
declare -A truth
row() { # name, class, workers, settings
  local name=$1 class=$2 workers=$3 run="$place/$1"
  shift 3
  local set=(--set "run.dir=$run" "${arguments[@]}")
  for s in "$@"; do set+=(--set "layout.$s"); done
  local said
  said=$("$program" train "$place/recipe.toml" --dry-run --json --workers "$workers" "${set[@]}" | sed -n 's/^  "memory_bytes": \([0-9]*\).*/\1/p')
  if [ "$workers" = 1 ]; then "$program" train "$place/recipe.toml" --quiet "${set[@]}" >/dev/null
  else "$program" launch -n "$workers" --run "$run" -- train "$place/recipe.toml" --quiet "${set[@]}" >/dev/null 2>"$run.err"; fi
  local taken hash loss
  taken=$(cat "$run"/log.jsonl "$run"/workers/*.jsonl | grep -o '"peak_bytes":[0-9]*' | cut -d: -f2 | sort -n | tail -1)
  loss=$(grep '"event":"step"' "$run/log.jsonl" | tail -1 | grep -o '"loss":[0-9.]*' | cut -d: -f2)
  hash=$("$program" ckpt show "$run" --json | sed -n 's/.*"weights_hash": "\(.\{12\}\).*/\1/p' | head -1)
  truth[$class]=${truth[$class]:-$hash}
  [ "$hash" = "${truth[$class]}" ] || { status=1; echo "other weights than its class, ${truth[$class]}:"; }
  awk -v n="$name" -v w="$workers" -v h="$hash" -v l="$loss" -v s="$said" -v t="$taken" \
    'BEGIN {printf "%-28s %8d  %-12s %-10.6f %6.0f MB %6.0f MB %4.1f %%\n", n, w, h, l, s / 1e6, t / 1e6, (t / s - 1) * 100; exit t / s > 1.05 || t / s < 0.95}' || status=1
}
arguments=("$@")
row single single 1
row tensor2 tensor2 2 tensor=2
row tensor2-again tensor2 2 tensor=2
row tensor2-replicas tensor2 4 tensor=2 zero_stage=1
row tensor2-rows tensor2-rows 2 tensor=2 sequence_parallel=true
row tensor4-rows tensor4-rows 4 tensor=4 sequence_parallel=true
row context2 context2 2 context=2
row context2-again context2 2 context=2
row context2-replicas context2 4 context=2 zero_stage=2
row context4 context4 4 context=4
row both both 4 tensor=2 sequence_parallel=true context=2
row both-again both 4 tensor=2 sequence_parallel=true context=2
exit $status
