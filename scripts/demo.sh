#!/usr/bin/env bash
# ./dev demo: the main job, end to end, on real text: about 24 MB of English reStructuredText (the Linux kernel's
# documentation, fetched as a Debian package and not installed) become a tokenizer, shards, a trained Llama-shaped model, its
# held-out score, samples and a Hugging Face directory. Everything lands in demo-run/; the package stays in .cache/.
# Interrupted (Ctrl-C, power), the same command continues the training where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8
stoker=$PWD/build/stoker
corpus=.cache/linux-doc
place=demo-run
start=$SECONDS

step() { printf '\n== %s (%d s)\n' "$1" $((SECONDS - start)); }
show() { printf '$ %s\n' "$*" | sed "s#$stoker#stoker#g"; "$@"; }
die() { printf 'dev demo: %s\n' "$*" >&2; exit 1; }

if [ ! -e "$corpus/complete" ]; then
  step "Fetch the text: Debian's linux-doc-6.1, unpacked and not installed"
  rm -rf "$corpus"
  mkdir -p "$corpus/package"
  if ! (cd "$corpus/package" && apt-get -q -o APT::Sandbox::User=root download linux-doc-6.1 >../fetch.log 2>&1); then
    # No package lists yet, or old ones: fetch them once and try again.
    sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get -q update >>"$corpus/fetch.log" 2>&1 || { cat "$corpus/fetch.log" >&2; die "apt-get update failed (above)"; }
    (cd "$corpus/package" && apt-get -q -o APT::Sandbox::User=root download linux-doc-6.1 >>../fetch.log 2>&1) ||
      { cat "$corpus/fetch.log" >&2; die "could not fetch linux-doc-6.1 (above). Is a Debian 12 mirror configured?"; }
  fi
  package=("$corpus"/package/linux-doc-6.1_*.deb)
  dpkg-deb -x "${package[0]}" "$corpus/root"
  mv "$corpus/root/usr/share/doc/linux-doc-6.1/Documentation" "$corpus/text"
  rm -rf "$corpus/text/translations"  # the demo's text is English
  rm -rf "$corpus/root"
  sha256sum "${package[0]}" | sed "s# .*/# #" >"$corpus/sha256"
  touch "$corpus/complete"
fi
step "The text: $(cat "$corpus/sha256")"

# A finished demo is done again; an interrupted one goes on.
if [ -e "$place/complete" ]; then rm -rf "$place"; fi
mkdir -p "$place"

step "Tokenizer and shards"
if [ ! -e "$place/data" ]; then
  show "$stoker" data prepare "$corpus/text/**/*.rst.gz" --out "$place/data" --vocab-size 4096 --held-out 0.02
fi
show "$stoker" data show "$place/data"

step "Train"
show "$stoker" train recipes/demo.toml --set "data.path=$place/data" --set "run.dir=$place/run"

step "Score on documents that were never trained on"
show "$stoker" eval "$place/run" --data "$place/data"

step "Write"
show "$stoker" sample "$place/run" --prompt "The scheduler" --tokens 80 --temperature 0.7 --top-p 0.9 --count 2

step "Export for transformers"
show "$stoker" ckpt export "$place/run" --out "$place/huggingface"
ls -l "$place/huggingface" | awk 'NR > 1 {printf "  %12d  %s\n", $5, $9}'

step "Report"
show "$stoker" report "$place/run"
touch "$place/complete"
echo
echo "ok: raw text to an exported model in $((SECONDS - start)) s; open $place/run/report.html"
