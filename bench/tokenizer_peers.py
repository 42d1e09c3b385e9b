#!/usr/bin/env python3
"""Stoker's tokenizer beside Hugging Face tokenizers and tiktoken, on the same text and the same vocabulary, one thread
each, one after the other in one run:

    tokenizer_peers.py path/to/stoker FILE [--megabytes 8]

Needs PyPI's tokenizers and tiktoken (pip install tokenizers tiktoken)."""
import argparse
import json
import os
import subprocess
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tiktoken
import tokenizers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

REGEX = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("stoker")
    args.add_argument("file")
    args.add_argument("--megabytes", type=float, default=8, help="how much of the file the slower peers encode (default 8)")
    args.add_argument("--vocab-size", type=int, default=32768)
    args = args.parse_args()
    text = open(args.file, encoding="utf-8", errors="ignore").read()
    documents = [text[i : i + 20000] for i in range(0, len(text), 20000)]
    part = documents[: max(1, int(args.megabytes * 1e6 / 20000))]
    size = sum(len(d.encode()) for d in part) / 1e6

    with tempfile.TemporaryDirectory() as dir:
        clean = os.path.join(dir, "text.txt")
        with open(clean, "w", encoding="utf-8", newline="") as f:
            f.write(text)
        out = os.path.join(dir, "tokenizer.json")
        subprocess.run([args.stoker, "data", "tokenizer", "train", clean, "-o", out, "--vocab-size", str(args.vocab_size)], check=True)
        ours = json.loads(subprocess.run([args.stoker, "bench", "tokenizer", clean, "--json", "--vocab-size", str(args.vocab_size)],
                                         check=True, stdout=subprocess.PIPE).stdout)
        hf = Tokenizer.from_file(out)
        vocab = json.load(open(out))["model"]["vocab"]
    order = {}
    extra = 256
    for b in range(256):
        if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174:
            order[chr(b)] = b
        else:
            order[chr(extra)] = b
            extra += 1
    names = [n for n in sorted(vocab, key=vocab.get) if n != "<|endoftext|>"]
    ranks = {bytes(order[c] for c in n): i for i, n in enumerate(names)}
    tt = tiktoken.Encoding("bench", pat_str=REGEX, mergeable_ranks=ranks, special_tokens={})

    rows = [("stoker, later passes", ours["encode_mb_per_s"]), ("stoker, first pass", ours["encode_first_mb_per_s"])]
    for name, encode in (("tokenizers", lambda d: hf.encode(d, add_special_tokens=False)), ("tiktoken", tt.encode_ordinary)):
        encode(part[0])
        times = []
        for _ in range(3):
            start = time.perf_counter()
            for d in part:
                encode(d)
            times.append(time.perf_counter() - start)
        rows.append((f"{name}, best of 3", size / min(times)))
    print(f"encoding, MB/s on one thread ({args.file}, {args.vocab_size} tokens; tokenizers {tokenizers.__version__}, tiktoken {tiktoken.__version__})")
    for name, speed in rows:
        print(f"  {name:24} {speed:8.1f}   {rows[0][1] / speed:6.1f}x slower than the first line")

    os.environ.pop("RAYON_NUM_THREADS", None)
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(REGEX), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    start = time.perf_counter()
    t.train_from_iterator(documents, trainers.BpeTrainer(vocab_size=args.vocab_size, show_progress=False,
                                                         initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    theirs = len(text.encode()) / 1e6 / (time.perf_counter() - start)
    print(f"training, MB/s: stoker {ours['train_mb_per_s']:.1f} on {ours['train_threads']} threads, tokenizers {theirs:.2f}"
          f" ({ours['train_mb_per_s'] / theirs:.1f}x)")


main()
