#!/usr/bin/env bash
# ./dev parquet: brings Arrow's C++ library (headers and shared libraries, as PyPI's pyarrow wheel carries them; Apache
# licence) to .cache/arrow and builds with it. Later builds of the same folder keep it; -DSTOKER_ARROW= leaves it out again.
set -euo pipefail
cd "$(dirname "$0")/.."
place=.cache/arrow
version=26.0.1
if [ ! -e "$place/complete-$version" ]; then
  rm -rf "$place"
  mkdir -p "$place"
  python3 -m venv "$place/venv"
  "$place/venv/bin/pip" -q --disable-pip-version-check download --no-deps --only-binary :all: -d "$place" "pyarrow==$version"
  python3 -m zipfile -e "$place"/pyarrow-*.whl "$place/wheel"
  mkdir "$place/arrow"
  mv "$place/wheel/pyarrow/include" "$place"/wheel/pyarrow/libarrow.so.* "$place"/wheel/pyarrow/libparquet.so.* "$place/arrow/"
  cp "$place"/wheel/pyarrow-*.dist-info/licenses/LICENSE.txt "$place/arrow/" 2>/dev/null || true
  rm -rf "$place/wheel" "$place/venv" "$place"/*.whl
  touch "$place/complete-$version"
fi
cmake --preset release -DSTOKER_ARROW="$PWD/$place/arrow" | grep -E '^-- Parquet'
ninja -C build stoker
