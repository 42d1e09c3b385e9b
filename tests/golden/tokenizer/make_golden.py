#!/usr/bin/env python3
"""Writes the golden files of src/data/tokenizer: tokenizers trained by PyPI's tokenizers and their ids for nasty texts.
Run in a virtual environment with tokenizers (0.23) and tiktoken (0.14)."""
import base64
import json
import os
import random

import tiktoken
import tokenizers
from tokenizers import normalizers, pre_tokenizers, processors

import patterns

HERE = os.path.dirname(os.path.abspath(__file__))


def write(name, text):
    with open(os.path.join(HERE, name), "w", encoding="utf-8", newline="") as f:
        f.write(text)


def main():
    corpus = patterns.training_text()
    write("training.txt", corpus)
    rng = random.Random(11)
    texts = patterns.NASTY + [patterns.random_text(rng, 40) for _ in range(40)]
    cases = {"tokenizers": tokenizers.__version__, "tiktoken": tiktoken.__version__, "texts": texts, "ids": {}}
    variants = [(n, n, False, "plain") for n in patterns.REGEX] + [("flags", "llama3", False, "flags"), ("nfc", "qwen2", True, "flags")]
    for file, pattern, nfc, added in variants:
        t = patterns.train(pattern, corpus, 640, nfc=nfc)
        write(f"trained_{file}.json", t.to_str()) if added == "plain" else None
        patterns.add_tokens(t, added)
        if file == "llama3":
            eot = t.token_to_id("<|endoftext|>")
            t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
                single="<|endoftext|> $A", pair="<|endoftext|> $A <|endoftext|> $B", special_tokens=[("<|endoftext|>", eot)])])
        text = t.to_str(pretty=(file == "gpt2"))
        if file in ("llama3", "qwen2"):  # one with the older form of merges, one as a model that skips merges
            data = json.loads(text)
            if file == "qwen2":
                data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]
            else:
                data["model"]["ignore_merges"] = True
                first = data["model"]["merges"][100]
                assert "".join(first) in data["model"]["vocab"]
                del data["model"]["merges"][100]  # now this token is reachable by lookup alone
            text = json.dumps(data, ensure_ascii=False)
        if file == "qwen3.5":  # a vocabulary entry that no merges reach, without ignore_merges
            data = json.loads(text)
            del data["model"]["merges"][100]
            text = json.dumps(data, ensure_ascii=True)
        t = tokenizers.Tokenizer.from_str(text)
        write(f"{file}.json", text)
        t.encode_special_tokens = False
        ids = {"recognise": [t.encode(x, add_special_tokens=False).ids for x in texts],
               "template": [t.encode(x).ids for x in texts[:20]]}
        t.encode_special_tokens = True
        ids["as_text"] = [t.encode(x, add_special_tokens=False).ids for x in texts]
        cases["ids"][file] = ids
    # add_prefix_space, and GPT-2's pair of files
    t = tokenizers.Tokenizer.from_file(os.path.join(HERE, "gpt2.json"))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    write("prefix_space.json", t.to_str())
    cases["ids"]["prefix_space"] = {"recognise": [t.encode(x, add_special_tokens=False).ids for x in texts]}
    os.makedirs(os.path.join(HERE, "gpt2_files"), exist_ok=True)
    t.model.save(os.path.join(HERE, "gpt2_files"))
    # tiktoken ranks: the bytes and merges of the trained tokenizers, renumbered from 0
    for pattern, regex in (("cl100k", patterns.TIKTOKEN_CL100K), ("o200k", patterns.REGEX["o200k"])):
        data = json.loads(open(os.path.join(HERE, f"trained_{pattern}.json"), encoding="utf-8").read())
        alphabet = {}
        extra = 256
        for b in range(256):
            if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174:
                alphabet[chr(b)] = b
            else:
                alphabet[chr(extra)] = b
                extra += 1
        names = [n for n, i in sorted(data["model"]["vocab"].items(), key=lambda x: x[1]) if n != "<|endoftext|>"]
        ranks = {bytes(alphabet[c] for c in n): i for i, n in enumerate(names)}
        write(f"{pattern}.tiktoken", "".join(f"{base64.b64encode(k).decode()} {v}\n" for k, v in ranks.items()))
        enc = tiktoken.Encoding("golden", pat_str=regex, mergeable_ranks=ranks, special_tokens={})
        cases["ids"][f"tiktoken_{pattern}"] = {"as_text": [enc.encode_ordinary(x) for x in texts]}
    write("cases.json", json.dumps(cases, ensure_ascii=True, separators=(",", ":")))


main()
