#!/usr/bin/env bash
# ./dev layouts [PATH/TO/stoker]: what layouts cost. One small model in a sweep of layouts; for each worker its predicted memory
# (stoker train --dry-run --workers N --rank R) beside the measured peak, where its steps went, and whether the weights are those of one
# worker. Exit code 1 when a prediction is off by more than 5 % or weights differ.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(readlink -f "${1:-build/stoker}") source=$PWD
. scripts/small_run.sh
place=${STOKER_LAYOUTS_DIR:-build/layouts}
rm -rf "$place"
make_small_data "$place" 40
cat >"$place/recipe.toml" <<TOML
[run]
dir = "$place/unused"
[model]
layers = 8
hidden = ${STOKER_LAYOUTS_HIDDEN:-384}
heads = 6
ffn = 1024
vocab = 4096
tied_embeddings = false
[data]
path = "$place/data"
sequence_length = 64
[train]
threads = 1
steps = 4
global_batch = 8
micro_batch = 1
virtual_ranks = 8
[checkpoint]
every = 1000
TOML
# The mean over the steps but the first of a number in a log.
mean() { # FILE KEY
  grep -o "\"$2\":[0-9.e+-]*" "$1" | tail -n +2 | cut -d: -f2 | awk '{ s += $1 } END { if (NR) printf "%.4f", s / NR; else printf "0" }'
}
last() { grep -o "\"$2\":\"\\?[0-9a-f.]*" "$1" | tail -1 | sed 's/.*:"\?//'; }
status=0 truth= count=0
printf '%-60s %4s %9s %9s %6s   %s\n' "workers, layout" "rank" "predicted" "peak" "off" "of the step: computing, waiting for gradients / weights / stages / agreement"
while read -r workers settings; do
  run=$place/run-$((++count))
  set=(--set "run.dir=\"$run\"")
  for s in $settings; do set+=(--set "layout.$s"); done
  if [ "$workers" = 1 ]; then "$program" train "$place/recipe.toml" "${set[@]}" --quiet >/dev/null
  else "$program" launch -n "$workers" -- train "$place/recipe.toml" "${set[@]}" --timeout 60 --quiet >/dev/null 2>"$run.err" || { cat "$run.err"; exit 1; }; fi
  weights=$(last "$run/log.jsonl" weights_hash)
  truth=${truth:-$weights}
  [ "$weights" = "$truth" ] || { status=1; echo "other weights: $weights, expected $truth"; }
  for log in "$run/log.jsonl" "$run"/workers/*.jsonl; do
    rank=$(last "$log" rank 2>/dev/null || echo 0)
    peak=$(last "$log" peak_bytes 2>/dev/null || true)
    [ -n "$peak" ] || continue
    predicted=$("$program" train "$place/recipe.toml" "${set[@]}" --dry-run --workers "$workers" --rank "${rank:-0}" --json | grep -o '"memory_bytes": [0-9]*' | cut -d' ' -f2)
    wall=$(mean "$log" time_s)
    awk -v l="$workers ${settings:-plain}" -v r="${rank:-0}" -v p="$predicted" -v m="$peak" -v w="$wall" -v c="$(mean "$log" compute)" \
      -v g="$(mean "$log" 'wait for gradients')" -v v="$(mean "$log" 'wait for weights')" -v s="$(mean "$log" 'wait for stages')" -v a="$(mean "$log" 'wait for agreement')" \
      'BEGIN { off = (p - m) / m * 100; t = w / 100; printf "%-60s %4d %6.1f MB %6.1f MB %+5.1f%%   %4.1f%%, %4.1f / %4.1f / %4.1f / %4.1f%%\n", l, r, p / 1e6, m / 1e6, off, c / t, g / t, v / t, s / t, a / t; exit (off > 5 || off < -5) }' || status=1
  done
done <<'LAYOUTS'
1
2
4
2 zero_stage=1
4 zero_stage=1
2 zero_stage=2
4 zero_stage=2
2 zero_stage=3
3 zero_stage=3
4 zero_stage=3
2 pipeline=2
4 pipeline=4
4 pipeline=2 zero_stage=1
4 pipeline=2 zero_stage=2
4 pipeline=2 schedule="interleaved" virtual_stages=2
4 pipeline=4 schedule="zero-bubble"
LAYOUTS
exit $status
