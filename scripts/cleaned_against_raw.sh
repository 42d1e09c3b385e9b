#!/usr/bin/env bash
# ./dev bench data quality: does cleaning pay? The demo's model, trained for the same number of tokens (STEPS batches, 600) on
# linux-doc-6.1 as it comes (reStructuredText, its HTML pages, the sources beside them, tables, five languages) and on the same cleaned
# by `stoker data build`, scored in bits per byte on documents that neither has: Documentation/networking and filesystems, cleaned.
# One tokenizer for both, trained on the raw corpus. Same seed; the order of steps, not time, so a busy machine changes nothing.
# STOKER names the program (build/stoker), CORPUS the unpacked package; results in runs/cleaned-against-raw.
set -euo pipefail
cd "$(dirname "$0")/.."
stoker=$(realpath "${STOKER:-build/stoker}")
root=$(realpath "${CORPUS:-.cache/corpora/usr/share/doc/linux-doc-6.1}")
steps=${1:-600}
place=$PWD/runs/cleaned-against-raw
rm -rf "$place"
mkdir -p "$place"
cd "$place"
list() { # every entry of three trees but the held-out two, as TOML
  for tree in Documentation html html/_sources; do
    find "$root/$tree" -mindepth 1 -maxdepth 1 ! -name networking ! -name filesystems ! -name _sources ! -name '_*' ! -name '*.js' ! -name '*.png'
  done | LC_ALL=C sort | sed 's/.*/  "&",/'
}
recipe() { # name stages paths
  cat <<TOML
name = "$1"
output = "$place/$1"
work = "$place/$1.work"
stages = [$2]
[[source]]
name = "kernel"
paths = [
$3
]
[shards]
tokenizer = "$place/tokenizer.json"
validation = $4
TOML
}
clean='{use = "unicode"}, {use = "language", keep = ["en"], min_share = 0.65},
  {use = "quality", rules = ["gopher_quality", "gopher_repetition"]}, {use = "exact"}, {use = "near", parameters = "fineweb"}, {use = "lines", min_documents = 3}'
recipe raw '' "$(list)" 0.001 >raw.toml
recipe cleaned "$clean" "$(list)" 0.001 >cleaned.toml
recipe heldout "$clean" "$(printf '  "%s",\n' "$root"/Documentation/{networking,filesystems})" 0.999 >heldout.toml
# A tokenizer is needed to build; the raw corpus is needed to make one.
sed '/^\[shards\]/,$d' raw.toml >text.toml
"$stoker" data build text.toml >build.log 2>&1 || { cat build.log; exit 1; }
python3 -c 'import json, sys
for line in sys.stdin: print(json.loads(line)["text"])' <"raw/$(cat raw/latest)/documents.jsonl" >raw.txt
"$stoker" data tokenizer train raw.txt -o tokenizer.json --vocab-size 4096 >/dev/null 2>&1
rm -rf raw raw.txt
for name in raw cleaned heldout; do
  "$stoker" data build $name.toml --json >$name.json 2>build.log || { cat build.log; exit 1; }
  python3 - $name <<'PY'
import json, sys
r = json.load(open(sys.argv[1] + ".json"))
print(f"{sys.argv[1]:8} {r['documents_out']:6} of {r['documents_in']:6} documents, {r['text_bytes_out'] / 1e6:6.1f} of {r['text_bytes_in'] / 1e6:6.1f} MB, {r['tokens'] / 1e6:5.1f} M tokens")
PY
done
for name in raw cleaned; do
  "$stoker" train ../../recipes/demo.toml --quiet --set "data.path=$place/$name/$(cat $name/latest)/tokens" --set "run.dir=$place/$name.run" \
    --set "train.steps=$steps" --set eval.every=0 >$name.log 2>&1 || { tail $name.log; exit 1; }
  "$stoker" eval "$name.run" --data "$place/heldout/$(cat heldout/latest)/tokens" --length 256 --windows 1000 --json >$name.score.json
done
python3 - "$steps" <<'PY'
import json, sys
score = {n: json.load(open(n + ".score.json")) for n in ("raw", "cleaned")}
print(f"after {sys.argv[1]} steps of 4,096 tokens, held-out bits per byte: raw {score['raw']['bits_per_byte']:.3f}, cleaned {score['cleaned']['bits_per_byte']:.3f}"
      f" ({100 * (1 - score['cleaned']['bits_per_byte'] / score['raw']['bits_per_byte']):.1f} % fewer)")
PY
