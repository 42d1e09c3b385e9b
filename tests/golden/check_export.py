#!/usr/bin/env python3
"""Checks `stoker ckpt import` and `export` against transformers. Run by hand: check_export.py build/stoker

For every model in tests/golden/models: import, export, load with from_pretrained (no missing or unexpected weights), compare every
tensor with the original bit for bit and the logits with golden.safetensors (float32: exactly what transformers gave before).
"""
import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors import safe_open

stoker = pathlib.Path(sys.argv[1]).resolve()
models = pathlib.Path(__file__).parent / "models"
for source in sorted(models.iterdir()):
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, out = f"{scratch}/checkpoint", f"{scratch}/out"
        for command in (["import", source, "--out", checkpoint], ["export", checkpoint, "--out", out]):
            subprocess.run([stoker, "ckpt", *command], check=True, stdout=subprocess.DEVNULL)
        load = dict(attn_implementation="eager", dtype=torch.float32)
        before = transformers.AutoModelForCausalLM.from_pretrained(source, **load).eval()
        after, info = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True, **load)
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
        same = before.state_dict().keys() == after.state_dict().keys() and all(
            torch.equal(v, after.state_dict()[k]) for k, v in before.state_dict().items())
        assert same, f"{source.name}: weights differ"
        with safe_open(source / "golden.safetensors", "pt") as golden:
            ids, f32, f64 = (golden.get_tensor(k) for k in ("input_ids", "logits_f32", "logits_f64"))
        with torch.no_grad():
            logits = after.eval()(ids.long()).logits
        drift = (logits - f32).abs().max().item()
        # Another number of threads may sum in another order: at most as far off as float32 is from float64.
        assert drift <= 2 * (f32.double() - f64).abs().max().item(), drift
        print(f"{source.name}: {len(before.state_dict())} tensors equal, logits differ by {drift:.1e}")
