#!/usr/bin/env bash
# ./dev gpu: builds with CUDA and runs every op case that has a GPU candidate on the GPU. Says in words what did not run:
# without nvcc nothing can be built, without a GPU nothing can be run; both are said, and neither is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '%s\n' "$*" >&2; }
if ! command -v nvcc >/dev/null && [ ! -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]; then
  echo "not built: no nvcc on the path, in CUDA_HOME or in /usr/local/cuda. Install the CUDA toolkit (13 or newer)."
  echo "GPU cases did not run."
  exit 0
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cmake --preset gpu >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
ninja -C build-gpu --quiet ops_test tensor_test stoker >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
echo "built with CUDA: build-gpu/stoker, linear (cuBLASLt), RMSNorm, LayerNorm and AdamW kernels"
build-gpu/src/tensor_test --gtest_brief=1
build-gpu/src/ops_test --gtest_filter='*Linear*:*Norm*:*Updates*:*Cuda*' >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
if grep -q 'did not run on a GPU' "$log"; then
  sed -n 's/.*: \([0-9]* op cases did not run on a GPU.*\)/\1/p; /^[0-9]* op cases did not run on a GPU/p' "$log" | head -1
  echo "GPU cases did not run."
else
  echo "ok: every op case with a GPU candidate ran there and agreed with ref"
fi
