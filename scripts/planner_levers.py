#!/usr/bin/env python3
"""What one change did to published runs, and what the planner says that it does.

    stoker plan fit runs.csv oom.csv --folds 5 --report held_out.json
    scripts/planner_levers.py held_out.json runs.csv

Pairs of rows that differ in one setting and its direct consequences only; the ratio of their measured times per
token against the ratio of the predicted ones (held out: by fits that have not seen their configurations)."""
import csv
import json
import statistics
import sys

SAME = ["source", "model_name", "gpu", "n_gpus", "tp", "pp", "cp", "ep", "zero_stage_fsdp", "vpp", "micro_batch",
        "global_batch", "seq_len", "precision_class", "activation_recompute", "flash_attention", "sequence_parallel"]


def kernel(row):
    return next((n for n in row["notes"].split(";") if "kernel=" in n or "asynctp" in n.lower()), "")


def fine_tuning(row):
    told = row["notes"].lower()
    if row["row_kind"] == "peft" or "finetuning lora" in told:
        return "lora"
    return "sft" if row["row_kind"] == "sft" or "finetuning sft" in told else ""


# name, columns that may differ, test of (from, to)
LEVERS = [
    ("bf16 to fp8", ["precision_class"], lambda a, b: (a["precision_class"], b["precision_class"]) == ("bf16", "fp8")),
    ("fp8 to fp4", ["precision_class"], lambda a, b: (a["precision_class"], b["precision_class"]) == ("fp8", "fp4")),
    ("full to no recomputation", ["activation_recompute"],
     lambda a, b: a["activation_recompute"].startswith("full") and b["activation_recompute"].startswith("none")),
    ("full to selective recomputation", ["activation_recompute"],
     lambda a, b: a["activation_recompute"].startswith("full") and b["activation_recompute"].startswith("selective")),
    ("full fine-tuning to LoRA",
     ["model_name", "n_gpus", "tp", "pp", "dp", "micro_batch", "global_batch", "cp", "vpp", "sequence_parallel"],
     lambda a, b: fine_tuning(a) == "sft" and fine_tuning(b) == "lora"
     and a["model_name"].split("[")[0] == b["model_name"].split("[")[0]),
    ("micro-batch doubled", ["micro_batch"],
     lambda a, b: a["micro_batch"] and b["micro_batch"] and float(b["micro_batch"]) == 2 * float(a["micro_batch"])),
    ("tensor parallel doubled", ["tp", "dp"],
     lambda a, b: a["tp"] and b["tp"] and float(b["tp"]) == 2 * float(a["tp"])),
    ("accelerators and batch doubled", ["n_gpus", "global_batch", "dp"],
     lambda a, b: a["n_gpus"] and b["n_gpus"] and a["global_batch"] and b["global_batch"]
     and float(b["n_gpus"]) == 2 * float(a["n_gpus"]) and float(b["global_batch"]) == 2 * float(a["global_batch"])),
    ("sequence doubled, same tokens", ["seq_len", "global_batch", "cp"],
     lambda a, b: a["seq_len"] and b["seq_len"] and a["global_batch"] and b["global_batch"]
     and float(b["seq_len"]) == 2 * float(a["seq_len"]) and 2 * float(b["global_batch"]) == float(a["global_batch"])),
]


def per_token(result, value, row):
    """Time per token of one accelerator in arbitrary units that are the same for both rows of a pair."""
    if result["metric"] == "step_s":
        return value * float(row["n_gpus"]) / (float(row["global_batch"]) * float(row["seq_len"]))
    return 1 / value


def main():
    report = json.load(open(sys.argv[1]))
    results = {r["id"]: r for r in report["configurations"]["results"] if "predicted" in r}
    rows = [r for f in sys.argv[2:] for r in csv.DictReader(open(f)) if r["id"] in results]
    print("| change | pairs | measured effect on time, median (from, to) | predicted | error, median | 90 % | same direction |")
    print("|---|---|---|---|---|---|---|")
    for name, free, test in LEVERS:
        groups = {}
        for row in rows:
            groups.setdefault(tuple(row[c] for c in SAME if c not in free) + (kernel(row),), []).append(row)
        measured, predicted = [], []
        for group in groups.values():
            for a in group:
                for b in group:
                    if a is b or not test(a, b):
                        continue
                    x, y = results[a["id"]], results[b["id"]]
                    if x["metric"] != y["metric"] or x["metric"] in ("tflops", "mfu_pct"):
                        continue
                    try:
                        measured.append(per_token(y, y["measured"], b) / per_token(x, x["measured"], a))
                        predicted.append(per_token(y, y["predicted"], b) / per_token(x, x["predicted"], a))
                    except ValueError:  # no batch or length printed
                        continue
        if len(measured) < 3:
            print(f"| {name} | {len(measured)} | too few | | | | |")
            continue
        errors = sorted(abs(p / m - 1) for m, p in zip(measured, predicted))
        clear = [(m, p) for m, p in zip(measured, predicted) if abs(m - 1) > 0.05]
        same = sum((m > 1) == (p > 1) for m, p in clear)
        print(f"| {name} | {len(measured)} | {100 * (statistics.median(measured) - 1):+.0f} % "
              f"({100 * (min(measured) - 1):+.0f}, {100 * (max(measured) - 1):+.0f}) | "
              f"{100 * (statistics.median(predicted) - 1):+.0f} % | {100 * statistics.median(errors):.1f} % | "
              f"{100 * errors[int(0.9 * (len(errors) - 1))]:.1f} % | {same} of {len(clear)} |")


if __name__ == "__main__":
    main()
