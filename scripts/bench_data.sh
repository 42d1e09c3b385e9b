#!/usr/bin/env bash
# ./dev bench data [PART...]: the numbers of docs/data-factory.md. Parts: stages signatures accuracy thin extract peers tokens whole
# quality faults memory (the last part of faults alone) feed (docs/feed.md); all of them when none is named, about fifteen minutes,
# most of it datatrove and the exact comparison of all pairs.
# Corpora: Debian's linux-doc-6.1 and cppreference-doc-en-html, fetched and unpacked, not installed. Peers: PyPI, in a virtual
# environment of their own, .venv-data.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '%s\n' "$*" >&2; }
place=.cache/corpora
for package in linux-doc-6.1 cppreference-doc-en-html; do
  if [ ! -e "$place/$package.complete" ]; then
    say "fetching $package"
    mkdir -p "$place/deb"
    (cd "$place/deb" && apt-get -q -o APT::Sandbox::User=root download "$package" >/dev/null)
    dpkg-deb -x "$place"/deb/"$package"_*.deb "$place"
    touch "$place/$package.complete"
  fi
done
kernel=$place/usr/share/doc/linux-doc-6.1
pages=$place/usr/share/cppreference/doc/html/en
ninja -C build corpus_bench >/dev/null
bench=build/bench/corpus_bench
kernel_text() {
  find "$kernel/Documentation" -name '*.rst.gz' -not -path '*translations*' | LC_ALL=C sort | xargs zcat >"$place/kernel.txt"
}
# The recipe again with a bound that moved: what is computed then.
moved_bound() {
  sed 's/\(gopher_repetition"\]\)/\1, bounds = {words = [60, 200000]}/; s,"\.\./,"'"$PWD"'/,' bench/whole_build.toml >runs/moved-bound.toml
  build/stoker data build runs/moved-bound.toml
}
parts=("$@")
[ $# -gt 0 ] || parts=(stages signatures accuracy thin extract peers tokens whole quality faults feed)
for part in "${parts[@]}"; do case "$part" in extract | peers | tokens)
  if [ ! -e .venv-data/complete ]; then
    say "making .venv-data with datatrove, trafilatura, tokenizers and tiktoken from PyPI"
    python3 -m venv .venv-data
    .venv-data/bin/pip -q --disable-pip-version-check install --only-binary :all: datatrove trafilatura lxml_html_clean spacy \
      orjson 'xxhash<4' tokenizers tiktoken
    touch .venv-data/complete
  fi ;;
esac; done
for part in "${parts[@]}"; do
  printf '\n== %s\n' "$part"
  case "$part" in
    stages) "$bench" stages "$kernel/Documentation" ;;
    signatures) "$bench" signatures "$kernel/Documentation" ;;
    accuracy) "$bench" accuracy "$kernel/Documentation" "$kernel/html/_sources"; "$bench" accuracy "$pages" ;;
    thin) "$bench" thin "$pages" ;;
    extract) .venv-data/bin/python bench/compare_trafilatura.py "$bench" "$kernel/html" "$pages" --source "$kernel/Documentation" ;;
    peers) .venv-data/bin/python bench/compare_datatrove.py build/stoker "$kernel/Documentation" --python .venv-data/bin/python ;;
    tokens)
      kernel_text
      .venv-data/bin/python bench/tokenizer_peers.py build/stoker "$place/kernel.txt" ;;
    whole)
      mkdir -p runs
      rm -rf runs/whole-build runs/whole-build.work
      if [ ! -e runs/whole-build.tokenizer.json ]; then
        kernel_text
        build/stoker data tokenizer train "$place/kernel.txt" -o runs/whole-build.tokenizer.json --vocab-size 8192 >/dev/null
      fi
      build/stoker data build bench/whole_build.toml
      moved_bound ;;
    faults) scripts/data_faults.sh ;;
    feed) build/stoker bench feed ;;
    memory) scripts/data_faults.sh 0 memory ;;
    quality) scripts/cleaned_against_raw.sh "${STEPS:-600}" ;;
    *) say "bench data: no part '$part'"; exit 64 ;;
  esac
done
