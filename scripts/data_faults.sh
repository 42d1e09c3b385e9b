#!/usr/bin/env bash
# scripts/data_faults.sh [KILLS] [PART...]: stoker data build under everything that goes wrong. Each case ends with the bytes of an undisturbed run or
# with a record in quarantine that says what was wrong, or this script fails.
#   kills     kill -9 at KILLS (50) random moments of builds that are each continued to the end
#   disk      a file system that is full in the middle; then room is made and the build goes on (needs root for tmpfs)
#   inputs    truncated gzip, bytes that are no UTF-8, a line of 2 GB, a gzip bomb, hostile paths in tar, hostile nesting in HTML
#   memory    an input several times larger than what a cgroup (without one: ulimit -v) allows the program, and very many small documents
# All parts when none is named. STOKER names the program (build/stoker); SMALL=1: fewer kills, a line of 200 MB, a smaller input (as the tests do).
set -euo pipefail
stoker=$(realpath "${STOKER:-$(dirname "$0")/../build/stoker}")
kills=${1:-50}
parts=" ${*:2} "
[ "$parts" != "  " ] || parts=" kills disk inputs memory "
wanted() { [[ "$parts" == *" $1 "* ]]; }
line_bytes=2147483648
bomb_bytes=1000000000
memory_copies=84
many_documents=590000
if [ "${SMALL:-}" = 1 ]; then kills=${1:-3}; line_bytes=209715200; bomb_bytes=200000000; memory_copies=8; many_documents=40000; fi
place=$(mktemp -d)
trap 'umount "$place/full" 2>/dev/null || true; rm -rf "$place"' EXIT
cd "$place"
RANDOM=7
say() { printf '%s\n' "$*"; }
die() { printf 'data faults: %s\n' "$*" >&2; exit 1; }

# Text that repeats itself here and there, so that every stage has something to do.
words=(the a of and to in model training data file kernel page memory reads writes when each with that have system call returns error)
make_text() { # seed lines
  awk -v seed="$1" -v lines="$2" -v list="${words[*]}" 'BEGIN {
    srand(seed); n = split(list, w, " ")
    for (i = 0; i < lines; ++i) {
      s = ""
      for (k = 0; k < 12; ++k) s = s w[1 + int(rand() * n)] " "
      print s (i % 9 == 0 ? "caf\303\251 " i : i) "."
    }
  }'
}
mkdir in
for i in $(seq 1 60); do make_text $((i % 50)) $((40 + i)) >"in/$i.txt"; done
for i in $(seq 1 40); do printf '<html><body><nav>menu</nav><main><h1>Page %d</h1><pre>%s</pre></main></body></html>' "$i" "$(make_text $((i + 30)) 30)" >"in/$i.html"; done
for i in $(seq 1 400); do printf '{"text": "%s"}\n' "$(make_text $((i % 300)) 6 | tr '\n' ' ')"; done | gzip >in/lines.jsonl.gz
"$stoker" data tokenizer train in/1.txt -o tokenizer.json --vocab-size 300 >/dev/null 2>&1

recipe() { # name folder [memory_mb]
  mkdir -p "$(dirname "$1")"
  cat >"$1.toml" <<TOML
name = "faults"
output = "$place/$1.out"
work = "$place/$1.work"
threads = 2
chunk_mb = 1
memory_mb = ${3:-64}
stages = [{use = "unicode"}, {use = "language"}, {use = "quality"}, {use = "exact"}, {use = "near", parameters = "fineweb"},
  {use = "lines", min_documents = 3}, {use = "pii"}]
[[source]]
name = "s"
paths = ["$place/$2"]
[shards]
tokenizer = "$place/tokenizer.json"
validation = 0.1
TOML
}
# One hash over every byte of a build's output.
sum_of() { (cd "$1.out" && find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-16); }
build() { "$stoker" data build "$1.toml" >"$place/$(basename "$1").log" 2>&1; }

recipe plain in
start=$(date +%s%N)
build plain || { cat plain.log; die "the undisturbed build failed"; }
span_ms=$((($(date +%s%N) - start) / 1000000))
truth=$(sum_of plain)
say "undisturbed: $span_ms ms, output $truth"

if wanted kills; then
done_kills=0 rounds=0
while [ "$done_kills" -lt "$kills" ]; do
  rm -rf killed.out killed.work
  recipe killed in
  rounds=$((rounds + 1))
  for _ in 1 2 3 4 5; do
    "$stoker" data build killed.toml >killed.log 2>&1 &
    pid=$!
    sleep "$(awk -v r=$RANDOM -v ms=$span_ms 'BEGIN {printf "%.3f", r / 32768 * ms / 1000}')"
    if kill -9 $pid 2>/dev/null; then done_kills=$((done_kills + 1)); fi
    wait $pid 2>/dev/null || true
    for version in killed.out/*/; do
      [ ! -e "$version" ] || [ -e "$version/report.html" ] || [[ "$version" == *.tmp* || "$version" == */.* ]] ||
        die "an incomplete version is visible after kill -9: $(ls "$version")"
    done
  done
  build killed || { cat killed.log; die "the build after kill -9 failed"; }
  find killed.out -maxdepth 1 -name '*.tmp*' -exec rm -rf {} +
  [ "$(sum_of killed)" = "$truth" ] || die "after kill -9 the output differs"
done
say "kill -9: $done_kills kills in $rounds builds, each ended with the undisturbed bytes"
fi

mkdir full
if ! wanted disk; then :
elif mount -t tmpfs -o size=400k none full 2>/dev/null; then
  recipe full/b in
  code=0
  build full/b || code=$?
  [ "$code" = 74 ] || { cat b.log; die "a full disk ended with exit code $code, expected 74 (storage)"; }
  [ -z "$(ls full/b.out 2>/dev/null | grep -v tmp)" ] || die "a full disk left output: $(ls full/b.out)"
  mount -o remount,size=200m full
  build full/b || { cat b.log; die "with room again the build failed"; }
  [ "$(sum_of full/b)" = "$truth" ] || die "after a full disk the output differs"
  umount full
  say "full disk: exit code 74, nothing half-written; with room again the undisturbed bytes"
else
  say "full disk: skipped, mounting a tmpfs needs root"
fi

if wanted inputs; then
mkdir bad
cp in/1.txt bad/good.txt
gzip -c in/2.txt | head -c 300 >bad/cut.txt.gz
printf '{"text": "one good line of a file"}\n{"text": "bytes \xff\xfe that are no text"}\n{"text": 5}\n{"text": "the last good line"}\n' >bad/utf8.jsonl
printf 'legacy caf\xe9 text of an old file, which is a text all the same\n' >bad/latin1.txt
truncate -s "$line_bytes" bad/long.jsonl
printf '\n{"text": "the line behind the long one"}\n' >>bad/long.jsonl
head -c "$bomb_bytes" /dev/zero | gzip -9 >bad/bomb.txt.gz
mkdir hostile && cp in/3.txt hostile/a.txt
tar -C hostile -P --transform 's,^,../../../../../../../tmp/stoker-was-here/,' -cf bad/paths.tar a.txt
rm -rf hostile
{ for _ in $(seq 1 100000); do printf '<div>'; done; } >bad/deep.html
recipe bad bad
limit=1500000
(ulimit -v $limit; "$stoker" --version) >/dev/null 2>&1 || limit=unlimited  # a sanitizer needs addresses of its own
(ulimit -v $limit; build bad) || { cat bad.log; die "hostile inputs ended the build"; }
[ ! -e /tmp/stoker-was-here ] || die "a path in a tar was followed"
out=bad.out/$(cat bad.out/latest)
want() { # file text
  grep -q -- "$2" "$out/$1" || { cat "$out/quarantine.jsonl"; die "expected in $1: $2"; }
}
want quarantine.jsonl 'cut.txt.gz#0'
want quarantine.jsonl 'utf8.jsonl#1'
want quarantine.jsonl 'utf8.jsonl#2.*is no string'
want quarantine.jsonl 'long.jsonl#0.*line longer than 67108864 bytes'
want quarantine.jsonl 'bomb.txt.gz#0'
want quarantine.jsonl 'deep.html#0.*nested'
want documents.jsonl 'the line behind the long one'
want documents.jsonl 'legacy caf'
want documents.jsonl 's/good.txt#0'
cat "$out/quarantine.jsonl"
say "inputs: truncated gzip, invalid UTF-8, a line of $line_bytes bytes, a gzip bomb, hostile paths and nesting: each in quarantine, the rest kept"
fi

wanted memory || { say "ok"; exit 0; }
# Memory: every document differs, so that all tables grow; thirty lines each.
mkdir large
for i in $(seq 1 "$memory_copies"); do
  awk -v part="$i" '{for (k = 0; k < 12; ++k) {
    if (++n % 30 == 1) printf "{\"text\": \""
    printf "%s %d %d %s", $0, part, k, NR * 7919 + k
    printf n % 30 == 0 ? "\"}\n" : "\\n"}} END {if (n % 30) print "\"}"}' in/*.txt >"large/$i.jsonl"
done
# Very many very small ones, so that whatever a build holds of each document is seen: half of them near duplicates of others.
mkdir many
awk -v n="$many_documents" 'BEGIN {srand(5); for (i = 0; i < n; ++i) {
  if (i % 2 == 0) { words = ""; for (k = 0; k < 11; ++k) words = words sprintf("%x ", rand() * 4096) }
  printf "{\"text\": \"%s%x\"}\n", words, i}}' >many/many.jsonl
for case in large many; do
  bytes=$(du -bc $case | tail -1 | cut -f1)
  documents=$(cat $case/* | wc -l)
  recipe $case $case 64
  group=/sys/fs/cgroup/memory/stoker-faults-$$
  if mkdir "$group" 2>/dev/null && echo 128M >"$group/memory.limit_in_bytes" 2>/dev/null; then
    (echo $BASHPID >"$group/cgroup.procs"; exec "$stoker" data build $case.toml >$case.log 2>&1) & pid=$!
    anonymous=0
    while kill -0 $pid 2>/dev/null; do
      now=$(awk '$1 == "rss" {print $2}' "$group/memory.stat")
      anonymous=$((now > anonymous ? now : anonymous))
      sleep 0.1
    done
    wait $pid || { cat $case.log; die "$documents documents of $bytes bytes could not be built within 128 MB"; }
    peak=$(cat "$group/memory.max_usage_in_bytes")
    swapped=$(awk '$1 == "swap" {print $2}' "$group/memory.stat")
    say "memory: $documents documents, $((bytes / 1000000)) MB, built with memory_mb = 64 in a cgroup of 128 MB, page cache included" \
      "(highest use $((peak / 1000000)) MB, of it $((anonymous / 1000000)) MB the program's own by samples, swapped ${swapped:-0})"
  else
    (ulimit -v 450000; MALLOC_ARENA_MAX=2 build $case) || { cat $case.log; die "$bytes bytes could not be built within 450 MB of addresses"; }
    say "memory: $((bytes / 1000000)) MB built with memory_mb = 64 under ulimit -v 450 MB: program, libraries and stacks included"
  fi
  rmdir "$group" 2>/dev/null || true
  grep -E '^(documents|took) ' $case.log
  rm -rf $case.out $case.work
done
say "ok"
