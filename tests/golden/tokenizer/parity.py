#!/usr/bin/env python3
"""Randomised comparison with PyPI's tokenizers and tiktoken, too long for the test run:

    parity.py path/to/stoker [texts per tokenizer] [--corpus FILE]

For each split pattern trains a tokenizer here, encodes random texts of every kind of character with both programs and
compares every id. With --corpus it also trains on that file with both and compares the merges."""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

import tiktoken
import tokenizers
from tokenizers import Tokenizer

import patterns


def stoker_ids(stoker, tokenizer, lines, *flags):
    run = subprocess.run([stoker, "data", "tokenizer", "encode", "-t", tokenizer, "--jsonl", *flags, lines],
                         check=True, stdout=subprocess.PIPE)
    return [json.loads(line) for line in run.stdout.splitlines()]


def main():
    args = argparse.ArgumentParser()
    args.add_argument("stoker")
    args.add_argument("texts", nargs="?", type=int, default=20000)
    args.add_argument("--corpus")
    args.add_argument("--seed", type=int, default=1)
    args = args.parse_args()
    total_texts = total_ids = wrong = 0
    with tempfile.TemporaryDirectory() as dir:
        corpus = patterns.training_text()
        for pattern in patterns.REGEX:
            for nfc, added in ((False, "plain"), (False, "flags"), (True, "flags")):
                rng = random.Random(f"{args.seed} {pattern} {nfc} {added}")
                texts = [patterns.random_text(rng, rng.randrange(1, 60)) for _ in range(args.texts)]
                lines = os.path.join(dir, "texts.jsonl")
                with open(lines, "w") as f:
                    f.writelines(json.dumps(t) + "\n" for t in texts)
                t = patterns.train(pattern, corpus, 900, nfc=nfc)
                patterns.add_tokens(t, added)
                path = os.path.join(dir, "tokenizer.json")
                t.save(path)
                for as_text in (False, True):
                    t.encode_special_tokens = as_text
                    theirs = [e.ids for e in t.encode_batch(texts, add_special_tokens=False)]
                    ours = stoker_ids(args.stoker, path, lines, *([] if as_text else ["--special"]))
                    bad = [i for i in range(len(texts)) if ours[i] != theirs[i]]
                    total_texts += len(texts)
                    total_ids += sum(map(len, theirs))
                    wrong += len(bad)
                    print(f"{pattern:8} nfc {nfc!s:5} added {added:5} as text {as_text!s:5}: {len(texts)} texts, {len(bad)} differ", flush=True)
                    for i in bad[:2]:
                        print("   ", json.dumps(texts[i]), "\n    ours  ", ours[i], "\n    theirs", theirs[i])
        for pattern, regex in (("cl100k", patterns.TIKTOKEN_CL100K), ("o200k", patterns.REGEX["o200k"])):
            here = os.path.dirname(os.path.abspath(__file__))
            from tiktoken.load import load_tiktoken_bpe
            enc = tiktoken.Encoding("parity", pat_str=regex, special_tokens={},
                                    mergeable_ranks=load_tiktoken_bpe(os.path.join(here, f"{pattern}.tiktoken")))
            rng = random.Random(args.seed)
            texts = [patterns.random_text(rng, rng.randrange(1, 60)) for _ in range(args.texts)]
            lines = os.path.join(dir, "texts.jsonl")
            with open(lines, "w") as f:
                f.writelines(json.dumps(t) + "\n" for t in texts)
            ours = stoker_ids(args.stoker, os.path.join(here, f"{pattern}.tiktoken"), lines, "--split", pattern)
            theirs = enc.encode_ordinary_batch(texts)
            bad = sum(a != b for a, b in zip(ours, theirs))
            total_texts += len(texts)
            total_ids += sum(map(len, theirs))
            wrong += bad
            print(f"tiktoken {pattern}: {len(texts)} texts, {bad} differ", flush=True)
        if args.corpus:
            text = open(args.corpus, encoding="utf-8", errors="replace").read()
            clean = os.path.join(dir, "corpus.txt")
            with open(clean, "w", encoding="utf-8", newline="") as f:
                f.write(text)
            theirs = json.loads(patterns.train("llama3", text, 32768).to_str())["model"]
            out = os.path.join(dir, "trained.json")
            subprocess.run([args.stoker, "data", "tokenizer", "train", clean, "-o", out, "--vocab-size", "32768"], check=True)
            ours = json.load(open(out))["model"]
            a, b = [tuple(m) for m in ours["merges"]], [tuple(m) for m in theirs["merges"]]
            same = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            print(f"trained on {args.corpus}: {len(a)} merges here, {len(b)} there, the first {same} equal; "
                  f"{len(set(a) & set(b))} in common; vocabularies equal: {ours['vocab'] == theirs['vocab']}")
            ids = stoker_ids(args.stoker, out, write_lines(dir, text))
            reference = Tokenizer.from_file(out)
            there = [e.ids for e in reference.encode_batch(split_lines(text))]
            bad = sum(x != y for x, y in zip(ids, there))
            total_ids += sum(map(len, there))
            total_texts += len(there)
            wrong += bad
            print(f"{args.corpus}: {len(there)} parts, {bad} differ")
    print(f"tokenizers {tokenizers.__version__}, tiktoken {tiktoken.__version__}: {total_texts} texts, {total_ids} ids, {wrong} texts differ")
    sys.exit(1 if wrong else 0)


def split_lines(text):
    return [text[i : i + 5000] for i in range(0, len(text), 5000)]


def write_lines(dir, text):
    path = os.path.join(dir, "parts.jsonl")
    with open(path, "w") as f:
        f.writelines(json.dumps(t) + "\n" for t in split_lines(text))
    return path


main()
