#!/usr/bin/env bash
# ./dev bench [step|torch]
#   step    this machine alone: matrix-product peak, then both 124M shapes (stoker bench step)
#   torch   (default) the same, interleaved with PyTorch from PyPI in a virtual environment of its own, .venv; writes the
#           table of docs/bench.md. About ten minutes, most of it torch.compile. --quick skips the compiled peer.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '%s\n' "$*" >&2; }
what=torch
case "${1:-}" in step | torch) what=$1; shift ;; esac
if [ "$what" = step ]; then
  exec build/stoker bench step "$@"
fi
if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import torch' 2>/dev/null; then
  say "making .venv with PyTorch from PyPI (a few hundred MB; CPU build where the index has one)"
  python3 -m venv .venv
  # The CPU build carries the local version +cpu; an index without it has the default build, which also runs on a CPU.
  .venv/bin/pip install --quiet --disable-pip-version-check --only-binary :all: numpy
  version=$(.venv/bin/pip download --quiet --disable-pip-version-check --no-deps --dry-run torch 2>/dev/null || true)
  .venv/bin/pip install --quiet --disable-pip-version-check --only-binary :all: torch
fi
exec .venv/bin/python bench/compare_torch.py "$@"
