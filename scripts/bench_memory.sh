#!/usr/bin/env bash
# ./dev bench memory: what `stoker train --dry-run` says of memory beside what the kernel counted at the run's peak, over shapes, precisions,
# optimizers and recomputation on one worker (./dev layouts does so for many). A few steps each, evaluation and a checkpoint among them.
# Exit code 1 when one is off by more than 2 %.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$PWD/build/stoker source=$PWD place=build/bench-memory
. scripts/small_run.sh
rm -rf "$place"
make_small_data "$place" 200
# Settings in one line; those of recipes/demo.toml where nothing is said.
gpt2='model.family="gpt2" optimizer.name="adamw" optimizer.learning_rate=1e-3'
large='model.layers=12 model.hidden=768 model.heads=12 model.ffn=2048 model.vocab=50304 data.sequence_length=512 optimizer.name="adamw"
  optimizer.learning_rate=6e-4 train.steps=2 eval.every=2 eval.windows=4 checkpoint.every=2'
shapes=(
  "" "train.virtual_ranks=2 train.global_batch=32" "train.micro_batch=4" "train.threads=1" 'train.precision="fp32"' 'train.recompute="full"'
  'optimizer.name="adamw" optimizer.learning_rate=1e-3' "model.layers=1 model.hidden=32 model.ffn=64 data.sequence_length=32"
  'model.layers=4 model.hidden=256 model.heads=4 model.ffn=704 train.recompute="full"'
  "$gpt2 model.layers=6 model.hidden=384 model.heads=6 model.ffn=1536"
  "model.layers=8 model.hidden=512 model.heads=8 model.ffn=1408 data.sequence_length=512 train.global_batch=4 train.micro_batch=4"
  "$large train.global_batch=4 train.micro_batch=4"
  "$large train.global_batch=8 train.micro_batch=4 train.virtual_ranks=2 train.recompute=\"full\""
)
status=0
printf '%9s %9s %6s   %s\n' said peak off "recipes/demo.toml with"
for shape in "${shapes[@]}"; do
  set=()
  for s in $shape; do set+=(--set "$s"); done
  rm -rf "$place/run"
  "$program" train recipes/demo.toml --set data.path="$place/data" --set run.dir="$place/run" --set train.minutes=0 --set train.steps=12 \
    --set data.eval_split=train --set eval.every=6 --set eval.windows=16 --set checkpoint.every=6 "${set[@]}" --json >"$place/result" \
    2>"$place/log" || { cat "$place/log" >&2; exit 1; }
  said=$(grep -o '"memory_bytes": [0-9]*' "$place/result" | cut -d' ' -f2) peak=$(grep -o '"peak_bytes": [0-9]*' "$place/result" | cut -d' ' -f2)
  awk -v s="$said" -v p="$peak" -v what="$(tr -s ' \n' ' ' <<<"$shape")" 'BEGIN {
    off = (s / p - 1) * 100
    printf "%6.1f MB %6.1f MB %+5.1f%%   %s\n", s / 1e6, p / 1e6, off, what
    exit off > 2 || off < -2 }' || status=1
done
[ $status = 0 ] && echo "ok: ${#shapes[@]} runs took what was said, within 2 %"
exit $status
