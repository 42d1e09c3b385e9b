#!/usr/bin/env bash
# ./dev chaos [FAULTS] [argument of stoker chaos...]: a small model on a text of the tree, disturbed so many times (200), with the
# verdict. As root all kinds of faults; without, all but network partitions.
set -euo pipefail
cd "$(dirname "$0")/.."
program=build/stoker source=$PWD
. scripts/small_run.sh
faults=200
case "${1:-}" in [0-9]*) faults=$1; shift ;; esac
place=${STOKER_CHAOS_DIR:-build/chaos}
rm -rf "$place"
make_small_data "$place" 40
cat >"$place/recipe.toml" <<TOML
[run]
dir = "$place/unused"
[model]
layers = 2
hidden = 64
heads = 4
ffn = 128
vocab = 400
[data]
path = "$place/data"
sequence_length = 32
[train]
threads = 1
steps = 1000
global_batch = 16
micro_batch = 1
virtual_ranks = 8
TOML
exec "$program" chaos "$place/recipe.toml" --kills "$faults" --run "$place/run" "$@"
