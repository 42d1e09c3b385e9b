#!/usr/bin/env python3
"""Turns the table of Megatron-LM's own test cases (arguments, iteration time, peak of allocated memory) into the
columns that `stoker plan validate` reads:

    scripts/megatron_golden_runs.py golden_megatron.csv > golden_runs.csv
    stoker plan validate golden_runs.csv

Only decoders (gpt, moe) are converted; the others are listed on standard error. The cases are tiny (12 layers of
width 512): their time is that of the host, so only memory is compared unless --times is given."""
import csv
import sys

GPUS = {"h100": "H100", "a100": "A100-80GB", "gb200": "GB200", "lts": "A100-80GB", "dev": "A100-80GB"}
OUT = ["id", "source", "model_name", "layers", "hidden", "heads", "kv_heads", "ffn_hidden", "vocab", "seq_len", "gpu",
       "n_gpus", "gpus_per_node", "tp", "pp", "dp", "cp", "ep", "zero_stage_fsdp", "vpp", "micro_batch", "global_batch",
       "precision", "activation_recompute", "flash_attention", "sequence_parallel", "iteration_time_s", "peak_mem_GB",
       "notes", "row_kind"]


def number(row, key, otherwise):
    return int(float(row[key])) if row[key] else otherwise


def convert(row, times):
    tp, pp, cp = (number(row, k, 1) for k in ("tp", "pp", "cp"))
    world = number(row, "nodes", 1) * number(row, "gpus_per_node", 8)
    if world % (tp * pp * cp):
        return None
    gpu = next((v for k, v in GPUS.items() if k in row["env_platform"]), None)
    if not gpu or not row["mem_max_allocated_GiB"] or row["experts"] or row["fsdp"]:
        return None
    vpp = row["vpp"] or (str(number(row, "layers", 12) // pp // number(row, "layers_per_vstage", 1))
                         if row["layers_per_vstage"] else "1")
    # GPT-2's vocabulary padded to 128 x tp
    unit = number(row, "vocab_div", 128) * tp
    vocab = (number(row, "vocab", 50257) + unit - 1) // unit * unit
    return {
        "id": row["id"], "source": "Megatron-LM golden values; megatron-core",
        "model_name": f"{row['case'].split('/')[-1]}", "layers": row["layers"], "hidden": row["hidden"],
        "heads": row["heads"], "kv_heads": row["kv_heads"], "ffn_hidden": row["ffn_hidden"], "vocab": vocab,
        "seq_len": row["seq_len"], "gpu": gpu, "n_gpus": world, "gpus_per_node": number(row, "gpus_per_node", 8),
        "tp": tp, "pp": pp, "dp": world // (tp * pp * cp), "cp": cp, "ep": row["ep"],
        "zero_stage_fsdp": "distributed optimizer" if row["dist_opt"] == "true" else "ddp", "vpp": vpp,
        "micro_batch": row["micro_batch"], "global_batch": row["global_batch"],
        "precision": "bf16" if row["bf16"] == "true" else "fp16" if row["fp16"] == "true" else "fp32",
        "activation_recompute": row["recompute_gran"] or "none",
        "flash_attention": "no" if row["attn"] in ("unfused", "local") else "yes",
        "sequence_parallel": "yes" if row["sp"] == "true" else "no",
        "iteration_time_s": row["iter_time_s_median"] if times else "",
        "peak_mem_GB": row["mem_max_allocated_GiB"], "notes": "memory=allocated", "row_kind": "dense"}


def main():
    times = "--times" in sys.argv
    path = [a for a in sys.argv[1:] if not a.startswith("--")][0]
    out = csv.DictWriter(sys.stdout, OUT, lineterminator="\n")
    out.writeheader()
    skipped = 0
    for row in csv.DictReader(open(path)):
        made = convert(row, times) if row["model_family"] == "gpt" else None
        if made:
            out.writerow(made)
        else:
            skipped += 1
    print(f"{skipped} cases are not plain decoders, or state no memory", file=sys.stderr)


if __name__ == "__main__":
    main()
