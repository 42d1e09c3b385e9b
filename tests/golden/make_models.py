#!/usr/bin/env python3
"""Makes tests/golden/models/*: tiny random models as transformers saves them, with what it computes from them.

Run by hand when a case is added (torch, transformers, safetensors, numpy from PyPI); the output is committed, tests need no
Python. Each directory holds config.json and model.safetensors (fp32) as save_pretrained writes them (one of them sharded),
and golden.safetensors:
  input_ids            [B,T] int32     random tokens; loss predicts input_ids[:, 1:]
  logits_f32           [B,T,V] f32     the fp32 model's logits
  logits_f64           [B,T,V] f64     the same weights converted to float64
  loss_f64             [1] f64         mean cross-entropy over the B*(T-1) predicted tokens
  grad.<parameter>     f64 gradient of that loss, in the layout of the file (GPT-2's Conv1D: [in, out])
Attention is causal ("eager"), no dropout, no padding. transformers computes norms, softmax and rotary angles in float32 even in a
float64 model; here those casts are turned off and the rotary frequencies are recomputed, so that *_f64 is float64 throughout.
"""
import contextlib
import math
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file

B, T = 2, 17

COMMON = dict(vocab_size=113, hidden_size=32, intermediate_size=88, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=4, max_position_embeddings=64, attn_implementation="eager")

CASES = {
    "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Config(
        vocab_size=113, n_positions=32, n_embd=32, n_layer=2, n_head=4, attn_implementation="eager",
        attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, bos_token_id=0, eos_token_id=0)),
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig(**COMMON)),
    "llama3": (transformers.LlamaForCausalLM, transformers.LlamaConfig(
        **{**COMMON, "num_key_value_heads": 2, "num_hidden_layers": 3, "head_dim": 16}, tie_word_embeddings=True,
        rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 16})),
    "llama_linear_rope": (transformers.LlamaForCausalLM, transformers.LlamaConfig(
        **COMMON, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5})),
    "mistral": (transformers.MistralForCausalLM, transformers.MistralConfig(
        **{**COMMON, "num_key_value_heads": 2}, head_dim=8, sliding_window=5)),
    "qwen2": (transformers.Qwen2ForCausalLM, transformers.Qwen2Config(**{**COMMON, "num_key_value_heads": 2})),
    "qwen3": (transformers.Qwen3ForCausalLM, transformers.Qwen3Config(
        **{**COMMON, "num_key_value_heads": 2}, head_dim=12, tie_word_embeddings=True)),
}
SHARDED = {"qwen2": "60KB"}


def randomise(model, generator):
    # Larger than any usual initialisation, and gains and biases away from 1 and 0: a missing bias, gain or rotation must
    # show in the logits.
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float32)
            if p.dim() >= 2:
                p.copy_(noise * (0.6 / max(p.shape[-1], 1) ** 0.5 if "embed" not in name and "wte" not in name else 0.5))
            elif name.endswith("bias"):
                p.copy_(noise * 0.2)
            else:
                p.copy_(1 + noise * 0.2)


@contextlib.contextmanager
def float64_throughout():
    """Casts of float64 values to float32 inside the model do nothing."""
    tensor_to, tensor_float, softmax = torch.Tensor.to, torch.Tensor.float, torch.nn.functional.softmax

    def to(self, *args, **kwargs):
        if self.dtype == torch.float64 and (torch.float32 in args or kwargs.get("dtype") == torch.float32):
            return self
        return tensor_to(self, *args, **kwargs)

    def wide_float(self, *args, **kwargs):
        return self.double() if not self.dtype.is_complex else tensor_float(self, *args, **kwargs)

    def wide_softmax(x, dim=None, dtype=None, **kwargs):
        return softmax(x, dim=dim, dtype=None if x.dtype == torch.float64 else dtype)

    torch.Tensor.to, torch.Tensor.float, torch.nn.functional.softmax = to, wide_float, wide_softmax
    try:
        yield
    finally:
        torch.Tensor.to, torch.Tensor.float, torch.nn.functional.softmax = tensor_to, tensor_float, softmax


def rope_frequencies(config):
    """Inverse frequencies in float64, after RoFormer (arXiv:2104.09864) and the Llama 3.1 rescaling."""
    rope = config.rope_parameters
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    out = []
    for i in range(0, dim, 2):
        f = rope["rope_theta"] ** (-i / dim)
        if rope["rope_type"] == "linear":
            f /= rope["factor"]
        elif rope["rope_type"] == "llama3":
            turns = rope["original_max_position_embeddings"] * f / (2 * math.pi)
            low, high = rope["low_freq_factor"], rope["high_freq_factor"]
            keep = min(max((turns - low) / (high - low), 0.0), 1.0)
            f = keep * f + (1 - keep) * f / rope["factor"]
        out.append(f)
    return torch.tensor(out, dtype=torch.float64)


def check_gradient(model, ids, loss):
    """Central difference along a random direction in all parameters: a float32 step left in would be off by about 1e-2."""
    torch.manual_seed(5)
    directions = [torch.randn_like(p) for p in model.parameters()]
    slope = sum((p.grad * d).sum() for p, d in zip(model.parameters(), directions)).item()

    def shifted(h):
        with torch.no_grad(), float64_throughout():
            for p, d in zip(model.parameters(), directions):
                p += h * d
            value = torch.nn.functional.cross_entropy(
                model(ids).logits[:, :-1].reshape(-1, model.config.vocab_size), ids[:, 1:].reshape(-1)).item()
            for p, d in zip(model.parameters(), directions):
                p -= h * d
            return value

    h = 1e-5
    central = (shifted(h) - shifted(-h)) / (2 * h)
    assert abs(central - slope) <= 1e-6 * max(1.0, abs(slope)), (central, slope)
    print(f"  directional derivative {slope:.9g}, by central difference {central:.9g}")


def main():
    root = pathlib.Path(__file__).parent / "models"
    only = sys.argv[1:]
    for index, (name, (kind, config)) in enumerate(CASES.items()):
        if only and name not in only:
            continue
        generator = torch.Generator().manual_seed(1000 + index)
        model = kind(config).float().eval()
        randomise(model, generator)
        out = root / name
        out.mkdir(parents=True, exist_ok=True)
        for old in out.iterdir():
            old.unlink()
        model.save_pretrained(out, max_shard_size=SHARDED.get(name, "5GB"))
        ids = torch.randint(0, config.vocab_size, (B, T), generator=generator)
        with torch.no_grad():
            logits_f32 = model(ids).logits
        wide = model.double()
        for module in wide.modules():
            if hasattr(module, "inv_freq"):
                exact = rope_frequencies(config)
                torch.testing.assert_close(module.inv_freq, exact, rtol=1e-6, atol=0)
                module.inv_freq = exact
        with float64_throughout():
            logits = wide(ids).logits
        assert logits.dtype == torch.float64
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
        loss.backward()
        check_gradient(wide, ids, loss)
        tensors = {
            "input_ids": ids.to(torch.int32),
            "logits_f32": logits_f32.contiguous(),
            "logits_f64": logits.detach().contiguous(),
            "loss_f64": loss.detach().reshape(1),
        }
        for pname, p in wide.named_parameters():
            tensors["grad." + pname] = p.grad.contiguous()
        save_file(tensors, out / "golden.safetensors", metadata={
            "torch": torch.__version__, "transformers": transformers.__version__})
        drift = (logits_f32.double() - logits).abs().max().item()
        size = sum(f.stat().st_size for f in out.iterdir())
        print(f"{name}: loss {loss.item():.6f}, |logits| up to {logits.abs().max().item():.2f}, f32 drift {drift:.1e}, {size} bytes")


main()
