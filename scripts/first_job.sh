#!/usr/bin/env bash
# A first job with an unpacked package, on a machine with nothing else: first_job.sh PATH/TO/stoker
# Trains a tiny model on the package's own documents, scores it, writes with it, exports it.
set -euo pipefail
stoker=$(readlink -f "$1")
documents=$(dirname "$stoker")/../share/stoker/docs
cd "$(mktemp -d)"
"$stoker" --version
"$stoker" doctor
"$stoker" data prepare "$documents" --out data --vocab-size 512 --held-out 0.2
cat >recipe.toml <<'TOML'
[run]
dir = "run"
[model]
layers = 2
hidden = 64
heads = 2
ffn = 128
vocab = 512
[data]
path = "data"
sequence_length = 64
[train]
steps = 20
global_batch = 8
micro_batch = 8
[optimizer]
learning_rate = 3e-3
TOML
"$stoker" train recipe.toml --quiet
"$stoker" eval run --data data
"$stoker" sample run --prompt "The" --tokens 20
"$stoker" ckpt export run --out huggingface
"$stoker" report run --columns 60
