#!/usr/bin/env bash
# ./dev bench overlap [PROGRAM...]: what two workers that share the width of a model wait for each other, with a slow cable between them: each in
# a network namespace of its own, limited both ways by a token bucket (tbf; needs root), TCP. Medians of the steps but the first two.
# Several programs (stoker of two commits) take turns, STOKER_TURNS (3) times each.
#   STOKER_RATE   of the cable, as tc says it (1gbit)
set -euo pipefail
cd "$(dirname "$0")/.."
source=$PWD rate=${STOKER_RATE:-1gbit}
programs=("${@:-$PWD/build/stoker}")
for i in "${!programs[@]}"; do programs[i]=$(readlink -f "${programs[i]}"); done
program=${programs[0]}
. scripts/small_run.sh
. scripts/two_hosts.sh
[ "$(id -u)" = 0 ] || { echo "dev bench overlap: network namespaces need root" >&2; exit 64; }
place=$(mktemp -d)
net=198.18.$((150 + $$ % 100)) name=sto$(($$ % 10000))
pids=()
finish() {
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  remove_two_hosts "$name"
  rm -rf "$place"
}
trap finish EXIT
make_two_hosts "$name" "$net" "$rate"
make_small_data "$place" 150
cd "$place"
cat >recipe.toml <<'TOML'
[run]
dir = "run"
[model]
family = "llama"
layers = 4
hidden = 512
heads = 8
ffn = 1408
vocab = 4096
[data]
path = "data"
sequence_length = 512
[train]
threads = 1
steps = 7
global_batch = 2
micro_batch = 2
virtual_ranks = 1
precision = "bf16"
[checkpoint]
every = 1000000
TOML
median() { sort -n | awk '{v[NR] = $1} END {printf "%.1f", 1000 * (NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2)}'; }
of_steps() { # KEY: of the run's steps but the first two
  grep '"event":"step"' run/log.jsonl | tail -n +3 | grep -o "\"$1\":[0-9.e+-]*" | cut -d: -f2
}
train() { # program, settings...
  local program=$1 i workers=()
  shift
  rm -rf run
  mkdir run
  "$program" coordinator --run run --workers 2 --listen "$net.1" >coordinator.log 2>&1 & pids+=($!)
  local coordinator=$!
  for i in $(seq 500); do [ -s run/coordinator ] && break; sleep 0.02; done
  for i in 1 2; do
    STOKER_COORDINATOR=$(cat run/coordinator) STOKER_TOKEN=$(cat run/token) STOKER_WORKER=w$i STOKER_RUN_DIR=run \
      ip netns exec "$name$i" "$program" train recipe.toml --quiet --timeout 30 --transport tcp "$@" >"w$i.log" 2>&1 & pids+=($!)
    workers+=($!)
  done
  wait "${workers[@]}" || { cat w1.log w2.log >&2; exit 1; }
  kill "$coordinator" 2>/dev/null || true
  wait "$coordinator" 2>/dev/null || true
  pids=()
}
printf '%-24s %-44s %12s %14s %6s\n' program layout "step" "tensor waits" part
for layout in "tensor=2" "tensor=2 sequence_parallel=true"; do
  set=()
  for s in $layout; do set+=(--set "layout.$s"); done
  for turn in $(seq "${STOKER_TURNS:-3}"); do
    for i in "${!programs[@]}"; do
      train "${programs[i]}" "${set[@]}"
      of_steps time_s >>"time-$i" && of_steps 'wait for tensor' >>"tensor-$i"
    done
  done
  for i in "${!programs[@]}"; do
    awk -v n="$(basename "${programs[i]}")" -v l="$layout" -v s="$(median <"time-$i")" -v t="$(median <"tensor-$i")" \
      'BEGIN {printf "%-24s %-44s %9.1f ms %11.1f ms %5.1f%%\n", n, l, s, t, 100 * t / s}'
    rm -f "time-$i" "tensor-$i"
  done
done
