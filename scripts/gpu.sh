#!/usr/bin/env bash
# ./dev gpu: builds with CUDA and runs every op case that has a GPU candidate on the GPU. Says in words what did not run:
# without nvcc nothing can be built, without a GPU nothing can be run; both are said, and neither is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cmake --preset release -DSTOKER_CUDA=AUTO >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
if grep -q '^STOKER_NVCC:.*NOTFOUND' build/CMakeCache.txt; then
  echo "not built with CUDA: no nvcc on the path, in CUDA_HOME or in /usr/local/cuda. Install the CUDA toolkit (13 or newer)."
  echo "GPU cases did not run."
  exit 0
fi
ninja -C build --quiet ops_test tensor_test stoker >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
echo "built with CUDA: matrix products (cuBLASLt), RMSNorm, LayerNorm and AdamW kernels"
build/src/tensor_test --gtest_brief=1 >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
build/src/ops_test --gtest_filter='*Linear*:*Norm*:*Updates*:*Cuda*' >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
if grep -o '[0-9]* op cases did not run on a GPU: .*' "$log" | head -1 | grep .; then
  echo "GPU cases did not run."
else
  echo "ok: every op case with a GPU candidate ran on the GPU and agreed with ref"
fi
