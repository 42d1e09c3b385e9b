#!/usr/bin/env bash
# ./dev bench checkpoint: what a checkpoint costs the training of a 124M model, and what becomes of it when things go wrong.
#   stall       how long the training waited for a save, against the time of 50 steps (one save per 50 steps: at most 2 %), in steps
#               of 4 x 1024 tokens; then, without a bound, in steps so short that a save takes many of them
#   kill -9     three times while a save is being written; the same command continues; weights compared with the undisturbed run's
#   full disk   a file system with room for one checkpoint and a half (root only: it is mounted)
#   damage      the newest checkpoint truncated, or one bit of it flipped: named, and an older one offered
# The faults strike a run of short steps (256 tokens).
# Needs 8 GB of disk in STOKER_PROOF_DIR (default: a new directory in /var/tmp, removed afterwards).
set -euo pipefail
cd "$(dirname "$0")/.."
stoker=$PWD/build/stoker recipe=$PWD/recipes/llama_124m.toml
keep=${STOKER_PROOF_DIR:+yes}
place=${STOKER_PROOF_DIR:-$(mktemp -d /var/tmp/stoker-proof-XXXXXX)}
mkdir -p "$place"
mounted=''
clean() {
  [ -z "$mounted" ] || umount -l "$mounted" || true
  [ "$keep" = yes ] || rm -rf --one-file-system "$place"
}
trap clean EXIT
die() { printf 'checkpoint proof: %s\n' "$*" >&2; exit 1; }
say() { printf '%-12s%s\n' "$1" "$2"; }

"$stoker" data prepare docs README.md --out "$place/data" --vocab-size 2048 --held-out 0.25 --replace >/dev/null 2>&1
job() { # run directory, steps, steps between saves, sequence length, sequences
  command=("$stoker" train "$recipe" --quiet --set "data.path=$place/data" --set "run.dir=$1" --set "train.steps=$2"
    --set "checkpoint.every=$3" --set "data.sequence_length=$4" --set "train.global_batch=$5" --set "train.micro_batch=$5"
    --set eval.windows=1 --set checkpoint.keep_last=2)
}
short_job() { job "$1" 18 6 128 2; }
weights() { "$stoker" ckpt show "$1" --json | sed -n 's/.*"weights_hash": *"\([0-9a-f]*\)".*/\1/p'; }
numbers() { sed -n "/\"event\":\"$2\"/s/.*\"$3\":\\([0-9.e+-]*\\).*/\\1/p" "$1/log.jsonl"; }
unfinished() { # is a save under way, or was one cut off?
  local d
  for d in "$1"/checkpoints/step-*/; do
    if [ -d "$d" ] && [ ! -e "$d/COMMIT" ]; then return 0; fi
  done
  return 1
}

waited() { # run directory, bound on the share of 50 steps
  { numbers "$1" step time_s | sort -g; echo saves; numbers "$1" checkpoint stall_s; echo bytes; numbers "$1" checkpoint bytes; } |
    awk -v bound="$2" '
      /^saves/ {part = 1; next} /^bytes/ {part = 2; next}
      part == 0 {step[n++] = $1} part == 1 {m++; sum += $1; if ($1 > most) most = $1} part == 2 {bytes = $1}
      END {s = step[int(n / 2)]; share = most / (50 * s)
        printf "%d saves of %.2f GB, waited %.1f ms on average, %.1f ms at most; a step takes %.2f s: one save per 50 steps costs %.3f %%\n", \
          m, bytes / 1e9, 1e3 * sum / m, 1e3 * most, s, 100 * share
        exit share > bound}'
}

job "$place/stall" 5 2 1024 4
"${command[@]}" >/dev/null
said=$(waited "$place/stall" 0.02) || die "the training waits too long for a checkpoint: $said"
say stall "$said"
rm -rf "$place/stall"

whole=$place/whole
short_job "$whole"
"${command[@]}" >/dev/null
right=$(weights "$whole")
say short "$(waited "$whole" 1)"

# Killed three times in the middle of a save.
killed=$place/killed
short_job "$killed"
for n in 1 2 3; do
  "${command[@]}" >/dev/null 2>&1 & pid=$!
  # Number n strikes in the n-th save; what an earlier kill left is not a save under way.
  for d in "$killed"/checkpoints/step-*/; do if [ -d "$d" ] && [ ! -e "$d/COMMIT" ]; then rm -rf "$d"; fi; done
  until unfinished "$killed" && [ "$(ls "$killed"/checkpoints/*/COMMIT 2>/dev/null | wc -l)" -ge $((n - 1)) ]; do
    kill -0 $pid 2>/dev/null || die "the run ended before a save could be disturbed"
    sleep 0.02
  done
  sleep 0.$((n * 2))
  if unfinished "$killed"; then when="in the middle of a save"; else when="after a save"; fi
  kill -9 $pid
  wait $pid 2>/dev/null || true
  say kill "kill -9 number $n $when"
done
"${command[@]}" >/dev/null
[ "$(weights "$killed")" = "$right" ] || die "weights after kill -9: $(weights "$killed"), undisturbed: $right"
identical=$(grep -c '"event":"replay","identical":true' "$killed/log.jsonl" || true)
say weights "$right, the undisturbed run's, after $n times kill -9; $identical resumes replayed a recorded step and found it identical"

# A full disk: the second save does not fit beside the first.
if [ "$(id -u)" = 0 ]; then
  mounted=$place/small
  mkdir -p "$mounted"
  mount -t tmpfs -o size=$(($(du -sb "$whole/checkpoints" | cut -f1) * 3 / 4)) tmpfs "$mounted"
  status=0
  short_job "$mounted/run"
  "${command[@]}" >/dev/null 2>"$place/full.txt" || status=$?
  [ "$status" = 74 ] || die "full disk: expected exit code 74, found $status: $(cat "$place/full.txt")"
  say "full disk" "exit code $status: $(tail -1 "$place/full.txt")"
  "$stoker" ckpt verify "$mounted/run" >/dev/null || die "full disk: the older checkpoint was lost"
  mount -o remount,size=100% "$mounted"
  "${command[@]}" >/dev/null
  [ "$(weights "$mounted/run")" = "$right" ] || die "weights after a full disk differ"
  say "full disk" "given room, the same command ended with the same weights"
  umount "$mounted"
  mounted=''
else
  say "full disk" "left out: mounting a small file system needs root"
fi

# Damage to the newest checkpoint.
short_job "$killed"
newest=$(ls -d "$killed"/checkpoints/step-* | tail -1)
file=$newest/optimizer-00000.safetensors
size=$(stat -c %s "$file")
for damage in flipped truncated; do
  if [ $damage = flipped ]; then
    byte=$(od -An -tu1 -j $((size / 2)) -N1 "$file" | tr -d ' ')
    printf "$(printf '\\%03o' $((byte ^ 1)))" | dd of="$file" bs=1 seek=$((size / 2)) conv=notrunc status=none
  else
    truncate -s $((size / 2)) "$file"
  fi
  status=0
  "${command[@]}" >/dev/null 2>"$place/damage.txt" || status=$?
  [ "$status" = 65 ] || die "$damage: expected exit code 65, found $status: $(cat "$place/damage.txt")"
  say $damage "exit code $status: $(tail -1 "$place/damage.txt" | sed "s#$place/##g")"
done
echo passed
