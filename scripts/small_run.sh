# Sourced by scripts that train a small model on a small text of the tree. Expects `program` (stoker) and `source` (the root of the tree).

# FOLDER/text and FOLDER/data: so many short documents, a vocabulary of 400, nothing held out.
make_small_data() { # folder documents
  local i
  mkdir -p "$1/text"
  for i in $(seq "$2"); do sed "s/^/$i /" "$source/tests/golden/tokenizer/training.txt" | head -c 3000 >"$1/text/$i.txt" || true; done
  "$program" data prepare "$1/text" --out "$1/data" --vocab-size 400 --held-out 0 >/dev/null 2>&1
}
# In the current folder: text/, data/ and recipe.toml, whose run directory is single/. 400 steps of 8 samples, 8 virtual ranks, each a
# few milliseconds.
make_small_run() {
  make_small_data . 30
  cat >recipe.toml <<'TOML'
[run]
dir = "single"
[model]
layers = 1
hidden = 32
heads = 2
ffn = 64
vocab = 400
[data]
path = "data"
sequence_length = 16
[train]
threads = 1
steps = 400
global_batch = 8
micro_batch = 1
virtual_ranks = 8
[checkpoint]
every = 50
TOML
}

weights() { "$program" ckpt show "$1" --json | sed -n 's/.*"weights_hash": "\(.*\)".*/\1/p'; }
batches() { cat "$1/ledger.jsonl" 2>/dev/null | wc -l; }
until_batches() { # run count
  local _
  for _ in $(seq 1200); do [ "$(batches "$1")" -ge "$2" ] && return; sleep 0.05; done
  die "$1 did not reach batch $2"
}
event() { # run text: waits for an event
  local _
  for _ in $(seq 300); do grep -q "$2" "$1/events.jsonl" 2>/dev/null && return; sleep 0.1; done
  die "$1: no event $2"
}
# The last checkpoint against one worker trained to the same step; the ledger against that number of batches.
same_as_alone() { # run [argument of stoker train...]
  local run=$1 step
  shift
  step=$("$program" ckpt show "$run" --json | sed -n 's/^ *"step": \([0-9]*\).*/\1/p' | head -1)
  "$program" train recipe.toml --quiet "$@" --until "$step" --set run.dir="\"$run.alone\"" >/dev/null 2>&1 || true
  [ "$(weights "$run")" = "$(weights "$run.alone")" ] || die "$run: weights at step $step differ from the single worker's"
  [ "$(batches "$run")" = "$step" ] || die "$run: the ledger has $(batches "$run") batches after step $step"
  [ "$(sed 's/.*"first_sample":\([0-9]*\).*/\1/' "$run/ledger.jsonl" | sort -n | uniq -d | wc -l)" = 0 ] || die "$run: samples repeated"
  echo "ok: $run at step $step has the single worker's weights, every sample once"
}
