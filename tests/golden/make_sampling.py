#!/usr/bin/env python3
"""Makes tests/golden/sampling/*: two models that Stoker trained and exported, and what transformers' generate does with them.

Run by hand: make_sampling.py build/stoker (torch, transformers, safetensors from PyPI); the output is committed, tests need no
Python. Each directory is what `stoker ckpt export` wrote, and
  greedy.txt           a line for each prompt: the prompt, the ids it was given (begin-of-text first), the ids that greedy generation
                       appends up to the end-of-text token; separated by tabs. The same with and without the key-value cache
  golden.safetensors   logits.<p> [V] f32 after prompt p, and probabilities.<p>.<s> [V] f64: softmax of the scores that generate
                       draws from under setting s (0 where it filtered the token out)
  settings.json        the settings: temperature, top_k, top_p
A greedy choice is only kept where the best logit leads by more than the rounding of a float32 model can change, and a filter
only where no token lies on its edge: checked here, so that the tests compare ids exactly.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parent
PROMPTS = ["The", "Training ", "a checkpoint is", "## ", "If the file", "workers", "Every step", "| ", "stoker data", "one of",
           "memory", "A run"]
KEEP = 5
SETTINGS = [dict(temperature=t, top_k=k, top_p=p) for t, k, p in [
    (1.0, 0, 1.0), (0.7, 0, 1.0), (1.5, 0, 0.9), (1.0, 5, 1.0), (1.0, 40, 0.8), (0.7, 20, 0.95), (2.0, 0, 0.5), (0.3, 0, 0.999)]]
NEW_TOKENS = 48
SHAPES = {"llama": 'family = "llama"\nheads = 4\nkv_heads = 2\nffn = 88', "gpt2": 'family = "gpt2"\nheads = 4\nffn = 128'}

RECIPE = """
[run]
dir = "run"
[model]
{shape}
layers = 2
hidden = 32
vocab = 384
[data]
path = "data"
sequence_length = 64
[train]
steps = 800
global_batch = 16
micro_batch = 16
threads = 1
[optimizer]
learning_rate = 4e-3
"""


def trained(stoker, shape, out):
    """Text of this checkout to an exported model."""
    with tempfile.TemporaryDirectory() as scratch:
        here = pathlib.Path(scratch)

        def run(*command):
            subprocess.run([stoker, *command], cwd=here, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        (here / "recipe.toml").write_text(RECIPE.format(shape=shape))
        run("data", "prepare", str(ROOT.parent.parent / "docs"), "--out", "data", "--vocab-size", "384", "--held-out", "0")
        run("train", "recipe.toml", "--quiet")
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(exist_ok=True)
        run("ckpt", "export", "run", "--out", str(out))


def decided(model, ids, first):
    """Whether every greedy choice after `first` ids leads by far more than rounding."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, first - 1:-1]
    best = logits.topk(2).values
    # float32 rounding of these models moves a logit by less than 1e-5 of the largest (tests/golden/models): 20 times that.
    return bool(((best[:, 0] - best[:, 1]) > 2e-4 * logits.abs().max()).all())


def filtered(model, ids, setting):
    """Logits and the probabilities that generate draws from; None where a token lies on a filter's edge."""
    out = model.generate(torch.tensor([ids]), do_sample=True, max_new_tokens=1, min_new_tokens=None, return_dict_in_generate=True,
                         output_scores=True, output_logits=True, pad_token_id=0, **setting)
    logits = out.logits[0][0].double()
    p = torch.softmax(logits / setting["temperature"], 0)
    if setting["top_k"]:
        last = p.topk(setting["top_k"] + 1).values[-2:]
        if last[0] / last[1] < 1 + 1e-5:
            return None
        p = torch.where(p >= last[0], p, 0)
        p = p / p.sum()
    # generate adds up float32 probabilities from the smallest until 1 - top_p: off by at most V roundings of that sum.
    edge = (p.sort(descending=True).values.cumsum(0) - setting["top_p"]).abs().min()
    rounding = 2 * len(p) * 2 ** -24 * (1 - setting["top_p"])
    if setting["top_p"] < 1 and edge <= rounding:
        return None
    return out.logits[0][0].float(), torch.softmax(out.scores[0][0].double(), 0)


def main():
    torch.set_num_threads(1)
    stoker = pathlib.Path(sys.argv[1]).resolve()
    for name, shape in SHAPES.items():
        out = ROOT / "sampling" / name
        trained(stoker, shape, out)
        load = dict(attn_implementation="eager", dtype=torch.float32)
        model = transformers.AutoModelForCausalLM.from_pretrained(out, **load).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(out)
        end = model.config.eos_token_id
        lines, tensors = [], {}
        for prompt in PROMPTS:
            given = [model.config.bos_token_id] + tokenizer(prompt)["input_ids"]
            room = min(NEW_TOKENS, model.config.max_position_embeddings - len(given))
            runs = [model.generate(torch.tensor([given]), do_sample=False, max_new_tokens=room, use_cache=cache,
                                   pad_token_id=0)[0].tolist() for cache in (True, False)]
            assert runs[0] == runs[1], f"{prompt!r}: the cache changes the ids"
            distributions = [filtered(model, given, setting) for setting in SETTINGS]
            if not decided(model, runs[0], len(given)) or None in distributions:
                print(f"{name}: {prompt!r} left out: a choice within rounding")
                continue
            made = [i for i in runs[0][len(given):] if i != end]
            print(f"{name}: {prompt!r} -> {tokenizer.decode(made)!r}")
            number = len(lines)
            for s, (logits, probabilities) in enumerate(distributions):
                tensors[f"logits.{number}"] = logits.contiguous()
                tensors[f"probabilities.{number}.{s}"] = probabilities.contiguous()
            lines.append("\t".join([prompt, ",".join(map(str, given)), ",".join(map(str, made))]))
            if len(lines) == KEEP:
                break
        assert len(lines) == KEEP, f"{name}: only {len(lines)} prompts are decided"
        (out / "greedy.txt").write_text("\n".join(lines) + "\n")
        (out / "settings.json").write_text(json.dumps(SETTINGS) + "\n")
        save_file(tensors, out / "golden.safetensors")


main()
