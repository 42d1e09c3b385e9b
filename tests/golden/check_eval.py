#!/usr/bin/env python3
"""Checks the loss of `stoker eval` against transformers. Run by hand: check_eval.py build/stoker HUGGINGFACE_DIR DATASET_DIR [LENGTH]

Scores the whole held-out split in float32, every token once, documents concatenated: windows of LENGTH tokens of the stream that begins
with the end-of-document token. The two must agree to 1e-6 nats per token: float32 rounding of one logit moves a token's loss by about
1e-5 nats, in either direction, and the mean is over many tokens.
"""
import json
import pathlib
import subprocess
import sys

import numpy
import torch
import transformers

stoker, model, dataset = sys.argv[1:4]
length = int(sys.argv[4]) if len(sys.argv) > 4 else 256
flags = ["--data", dataset, "--length", str(length), "--precision", "fp32", "--concatenated", "--json"]
ours = json.loads(subprocess.run([stoker, "eval", model, *flags], check=True, capture_output=True).stdout)

dataset = pathlib.Path(dataset)
tokenizer = json.loads((dataset / "manifest.json").read_text())["tokenizer"]
dtype = numpy.uint16 if tokenizer["vocabulary"] < 65500 else numpy.int32
shards = [numpy.fromfile(f, dtype=dtype) for f in sorted(dataset.glob("held_out_*.bin"))]
stream = torch.tensor(numpy.concatenate([[tokenizer["eod"]], *shards]).astype(numpy.int64))
net = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
nats = 0.0
with torch.no_grad():
    for x, y in zip(stream[:-1].split(length), stream[1:].split(length)):
        logits = net(x[None]).logits[0].double()
        nats += torch.nn.functional.cross_entropy(logits, y, reduction="sum").item()
targets = len(stream) - 1
theirs = nats / targets
print(f"{targets} tokens: stoker {ours['loss']:.9f}, transformers {theirs:.9f}, apart {abs(ours['loss'] - theirs):.1e}")
assert ours["tokens"] == targets and abs(ours["loss"] - theirs) < 1e-6
