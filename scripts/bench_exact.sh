#!/usr/bin/env bash
# ./dev bench exact: what it costs that the layout never changes the bits.
#   sums   the canonical tree sum against the fastest of gloo's own all-reduces, in one run (stoker bench comm)
#   steps  whole steps of two workers over TCP, eight virtual ranks (the tree, with its hashes and votes) against two, which is the least
#          that two workers can have; the same samples in the same micro-batches. Pairs of short runs, every other one in reverse
#          order, so that a machine that slows down burdens both; a pair's ratio is of median steps, the verdict the pairs' median
# bench_exact.sh [sums|steps [PAIRS]]; both when nothing is said, and five pairs.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$PWD/build/stoker source=$PWD
. scripts/small_run.sh
what=${1:-both} pairs=${2:-5}
if [ "$what" != steps ]; then
  "$program" bench comm --workers 2 4 8 --megabytes 25 250 --seconds 12
fi
[ "$what" != sums ] || exit 0
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
make_small_data "$place" 300
cd "$place"
cat >recipe.toml <<'TOML'
[run]
dir = "run"
[model]
family = "llama"
layers = 6
hidden = 384
heads = 6
ffn = 1024
vocab = 8192
tied_embeddings = true
[data]
path = "data"
sequence_length = 512
[train]
threads = 1
steps = 6
global_batch = 16
micro_batch = 2
precision = "bf16"
[checkpoint]
every = 1000000
TOML
step_of() { # virtual ranks: median seconds of the steps but the first
  rm -rf run
  "$program" launch -n 2 --run run -- train recipe.toml --quiet --transport tcp --set "train.virtual_ranks=$1" >/dev/null 2>&1
  sed -n 's/.*"event":"step".*"time_s":\([0-9.e-]*\).*/\1/p' run/log.jsonl | tail -5 | sort -g | sed -n 3p
}
for pair in $(seq "$pairs"); do
  if ((pair % 2)); then two=$(step_of 2) eight=$(step_of 8)
  else eight=$(step_of 8) two=$(step_of 2); fi
  echo "$two $eight" | awk '{printf "%s s with 2 virtual ranks, %s s with 8: %.3f\n", $1, $2, $2 / $1}'
done | tee times >&2
awk '{print $NF}' times | sort -g | awk '{r[NR] = $1} END {
  printf "whole step, 13.8 M parameters, 8 against 2 virtual ranks: %.3f (%d pairs, %.3f to %.3f)\n", r[int((NR + 1) / 2)], NR, r[1], r[NR]}'
