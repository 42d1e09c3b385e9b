#!/usr/bin/env bash
# ./dev bench [step|torch|ddp|exact|overlap|memory|data|checkpoint]
#   step    this machine alone: matrix-product peak, then both 124M shapes (stoker bench step)
#   torch   (default) the same, interleaved with PyTorch from PyPI in a virtual environment of its own, .venv; writes the
#           table of docs/bench.md. About ten minutes, most of it torch.compile; --quick leaves the compiled peer out.
#   ddp     several processes: data-parallel training against PyTorch DDP with gloo, here and over cables of 1 Gbit/s between
#           network namespaces (needs root); bench/compare_ddp.py --help lists what can be chosen
# pip's own configuration applies: an index of CPU builds named there (PIP_EXTRA_INDEX_URL) saves gigabytes.
#   exact   what it costs that the layout never changes the bits: sums and whole steps
#   overlap what workers that share a model's width wait for one another over a cable of 1 Gbit/s between network namespaces (root)
#   memory  what a run was said to take beside what it took, over shapes
#   data    the data factory on two messy Debian packages: stages, signatures, accuracy of the bands, extraction beside
#           trafilatura, dedup and shards beside datatrove, encoding beside tokenizers and tiktoken, training on cleaned
#           text beside raw (docs/data-factory.md)
#   checkpoint  what a checkpoint of a 124M model costs, and kill -9, a full disk and damage (scripts/checkpoint_proof.sh)
#   STOKER_TORCH_PYTHON   a Python that already has torch, used instead of .venv
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '%s\n' "$*" >&2; }
what=torch
case "${1:-}" in step | torch | ddp | exact | overlap | memory | data | checkpoint) what=$1; shift ;; esac
if [ "$what" = data ]; then
  exec scripts/bench_data.sh "$@"
fi
if [ "$what" = exact ]; then
  exec scripts/bench_exact.sh "$@"
fi
if [ "$what" = overlap ]; then exec scripts/bench_overlap.sh "$@"; fi
if [ "$what" = memory ]; then exec scripts/bench_memory.sh; fi
if [ "$what" = checkpoint ]; then exec scripts/checkpoint_proof.sh; fi
if [ "$what" = step ]; then
  exec build/stoker bench step "$@"
fi
python=${STOKER_TORCH_PYTHON:-.venv/bin/python}
if ! "$python" -c 'import torch' 2>/dev/null; then
  [ -z "${STOKER_TORCH_PYTHON:-}" ] || { say "dev bench: $python has no torch"; exit 64; }
  say "making .venv with PyTorch from PyPI"
  python3 -m venv .venv
  .venv/bin/pip install --disable-pip-version-check --only-binary :all: --progress-bar off torch numpy | sed -n 's/^Collecting/  fetching/p' >&2
fi
"$python" -c 'import torch; print("torch", torch.__version__)' >&2
if [ "$what" = ddp ]; then exec "$python" bench/compare_ddp.py "$@"; fi
exec "$python" bench/compare_torch.py "$@"
