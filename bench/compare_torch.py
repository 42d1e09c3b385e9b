#!/usr/bin/env python3
"""Stoker's training step against PyTorch's, on the same shapes, interleaved.

Each peer run is put between two of ours, so that a machine that slows down slows both; a ratio is the peer's number
over the mean of the two of ours around it, and the table has the median over rounds. Same shapes on both sides: sequences
of 1024, AdamW, clipping, bf16 with fp32 master weights (PyTorch: autocast). Run by ./dev bench, which makes the
virtual environment.
"""
import argparse
import json
import platform
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHAPES = {
    "gpt2": ["--arch", "gpt2", "--ffn", "3072", "--vocab", "50257"],
    "llama-124m": ["--arch", "llama", "--ffn", "2048", "--vocab", "50304"],
}


def fail(message):
    sys.exit(f"compare_torch: {message}")


def run(command, what):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"{what} failed with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def ours(args, shape):
    text = run([args.stoker, "bench", "step", "--json", "--model", shape, "--rows", str(args.rows), "--length",
                str(args.length), "--steps", str(args.steps)], "stoker bench step")
    result = json.loads(text)
    return result["models"][0] | {"peak_gflops": result["peak_gflops"]}


def peer(args, shape, compiled):
    command = [sys.executable, str(ROOT / "bench/peers/torch_gpt.py"), *SHAPES[shape], "--layers", "12", "--hidden", "768",
               "--heads", "12", "--seq", str(args.length), "--batch", str(args.rows), "--precision", "bf16",
               "--steps", str(args.steps), "--warmup", "1"] + (["--compile"] if compiled else [])
    return json.loads(run(command, "torch_gpt.py").splitlines()[-1])


def say(text):
    print(text, file=sys.stderr, flush=True)


def measure(args, shape):
    rows = {"eager": [], "compiled": []}
    mine = []
    for round_number in range(args.rounds):
        for mode in ["eager"] if args.quick else ["eager", "compiled"]:
            before = mine[-1] if mine else ours(args, shape)
            if not mine:
                mine.append(before)
            theirs = peer(args, shape, mode == "compiled")
            after = ours(args, shape)
            mine.append(after)
            around = (before["tokens_per_s"] + after["tokens_per_s"]) / 2
            rows[mode].append({"tokens_per_s": theirs["tokens_per_s"], "ratio": around / theirs["tokens_per_s"],
                               "peer": theirs["peer"]})
            say(f"  {shape}, round {round_number + 1}: stoker {around:.0f} tokens/s, {theirs['peer']} {mode} "
                f"{theirs['tokens_per_s']:.0f}: {around / theirs['tokens_per_s']:.2f}x")
    return mine, rows


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stoker", default=str(ROOT / "build/stoker"))
    parser.add_argument("--rows", type=int, default=4, help="sequences a step")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each run; the median counts")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--shape", choices=sorted(SHAPES), action="append", help="default: both")
    parser.add_argument("--quick", action="store_true", help="without the compiled peer")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = {shape: measure(args, shape) for shape in args.shape or SHAPES}
    table = ["| shape | program | tokens/s | MFU | Stoker is |", "|---|---|---|---|---|"]
    summary = []
    for shape, (mine, rows) in results.items():
        rate = statistics.median(m["tokens_per_s"] for m in mine)
        mfu = statistics.median(m["mfu"] for m in mine)
        table.append(f"| {shape} | Stoker | {rate:.0f} | {100 * mfu:.0f} % | |")
        entry = {"shape": shape, "tokens_per_s": rate, "mfu": mfu, "peers": []}
        for mode, runs in rows.items():
            if not runs:
                continue
            peer_rate = statistics.median(r["tokens_per_s"] for r in runs)
            ratio = statistics.median(r["ratio"] for r in runs)
            peer_mfu = mfu * peer_rate / rate  # same work per token
            table.append(f"| {shape} | {runs[0]['peer']}, {mode} | {peer_rate:.0f} | {100 * peer_mfu:.0f} % | "
                         f"{ratio:.2f}x as fast |")
            entry["peers"].append({"peer": runs[0]["peer"], "mode": mode, "tokens_per_s": peer_rate, "ratio": ratio})
        summary.append(entry)
    peak = statistics.median(m["peak_gflops"] for mine, _ in results.values() for m in mine)
    page = f"""# Against PyTorch

Made by `./dev bench{" --quick" if args.quick else ""}` on {date.today().isoformat()}: {processor()}, matrix-product peak {peak:.0f} GFLOP/s in bf16
(measured in the same runs). One step is {args.rows} x {args.length} tokens: forward, backward, clipping, AdamW, bf16 with fp32 master
weights. Runs are interleaved; a ratio compares a peer with the mean of our runs before and after it. MFU is against that
peak, with the same count of FLOPs per token for both.

""" + "\n".join(table) + "\n"
    if args.json:
        print(json.dumps({"peak_gflops": peak, "shapes": summary}, indent=2))
    else:
        print("\n".join(table))
    if not args.quick and not args.shape:
        path = ROOT / "docs/bench.md"
        old = path.read_text() if path.exists() else ""
        _, heading, others = old.partition("\n# ")  # the sections after this one are others'
        path.write_text(page.rstrip("\n") + "\n" + (heading + others if others else ""))
        say("wrote docs/bench.md")


main()
