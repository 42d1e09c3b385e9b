#!/usr/bin/env python3
"""Stoker's data-parallel training against PyTorch DDP with gloo: same model, same batch, same number of processes, interleaved.

Three networks: this machine's own (here: PyTorch over loopback, Stoker by its default, shared memory), loopback for both, and
machines that are 1 Gbit/s apart: every process in a network namespace of its own, its cable limited both ways by a token bucket (tbf; needs root). Every
process has one thread. A ratio is the peer's rate over the mean of the two of ours around it. Run by ./dev bench ddp, which
makes the virtual environment.
"""
import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = dict(layers=6, hidden=384, heads=6, ffn=1024, vocab=8192)
NET = "198.18.251"


def fail(message):
    sys.exit(f"compare_ddp: {message}")


def say(text):
    print(text, file=sys.stderr, flush=True)


def ip(*words, check=True):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if check and done.returncode:
        fail(f"'ip {' '.join(words)}' failed: {done.stderr.strip()} (network namespaces need root)")


class Machines:
    """n network namespaces on a bridge, each cable limited to `rate` in both directions."""

    def __init__(self, n, rate):
        self.n = n
        self.remove()
        ip("link", "add", "stkd", "type", "bridge")
        ip("addr", "add", f"{NET}.1/24", "dev", "stkd")
        ip("link", "set", "stkd", "up")
        for i in range(n):
            ip("netns", "add", f"stkd{i}")
            ip("link", "add", f"stkdh{i}", "type", "veth", "peer", "name", f"stkdp{i}", "netns", f"stkd{i}")
            ip("link", "set", f"stkdh{i}", "master", "stkd", "up")
            ip("-n", f"stkd{i}", "addr", "add", f"{NET}.{i + 2}/24", "dev", f"stkdp{i}")
            ip("-n", f"stkd{i}", "link", "set", f"stkdp{i}", "up")
            ip("-n", f"stkd{i}", "link", "set", "lo", "up")
            bucket = ["root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
            subprocess.run(["tc", "qdisc", "add", "dev", f"stkdh{i}", *bucket], check=True)
            subprocess.run(["ip", "netns", "exec", f"stkd{i}", "tc", "qdisc", "add", "dev", f"stkdp{i}", *bucket], check=True)

    def remove(self):
        for i in range(16):
            ip("link", "del", f"stkdh{i}", check=False)
            ip("netns", "del", f"stkd{i}", check=False)
        ip("link", "del", "stkd", check=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


def recipe(place, n, args):
    rows = args.micro_rows * args.accumulate * n
    (place / "recipe.toml").write_text(f"""
[run]
dir = "run"
[model]
family = "llama"
layers = {MODEL["layers"]}
hidden = {MODEL["hidden"]}
heads = {MODEL["heads"]}
ffn = {MODEL["ffn"]}
vocab = {MODEL["vocab"]}
tied_embeddings = true
[data]
path = "data"
sequence_length = {args.length}
[train]
threads = 1
steps = {args.steps + args.warm_up}
global_batch = {rows}
micro_batch = {args.micro_rows}
virtual_ranks = {n}
precision = "bf16"
[optimizer]
name = "adamw"
learning_rate = 3e-4
[checkpoint]
every = 1000000
""")


def rate_of(run, args):
    times = [e["time_s"] for e in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if e["event"] == "step"]
    if len(times) < args.steps + args.warm_up:
        fail(f"{run}/log.jsonl has {len(times)} steps")
    return statistics.median(times[args.warm_up:])


def ours(place, n, network, machines, args):
    recipe(place, n, args)
    shutil.rmtree(place / "run", ignore_errors=True)
    train = [args.stoker, "train", "recipe.toml", "--quiet", "--timeout", "30"]
    if machines is None:
        transport = ["--transport", "tcp"] if network == "loopback" else []
        done = subprocess.run([args.stoker, "launch", "-n", str(n), "--run", "run", "--", *train[1:], *transport], cwd=place,
                              capture_output=True, text=True)
        if done.returncode:
            fail(f"stoker launch failed:\n{done.stderr[-2000:]}")
    else:
        (place / "run").mkdir()
        coordinator = subprocess.Popen([args.stoker, "coordinator", "--run", "run", "--workers", str(n), "--listen", f"{NET}.1"],
                                       cwd=place, stderr=subprocess.DEVNULL)
        while not (place / "run/coordinator").exists():
            time.sleep(0.02)
        address, token = ((place / "run" / name).read_text().strip() for name in ("coordinator", "token"))
        workers = [subprocess.Popen(["ip", "netns", "exec", f"stkd{i}", *train, "--transport", "tcp"], cwd=place,
                                    env=os.environ | {"STOKER_COORDINATOR": address, "STOKER_TOKEN": token,
                                                      "STOKER_WORKER": f"w{i}", "STOKER_RUN_DIR": "run"})
                   for i in range(n)]
        codes = [w.wait() for w in workers]
        coordinator.terminate()
        coordinator.wait()
        if any(codes):
            fail(f"stoker train failed: exit codes {codes}")
    return n * args.micro_rows * args.accumulate * args.length / rate_of(place / "run", args)


def theirs(n, machines, args):
    where = [] if machines is None else ["--namespaces", "stkd", "--address", f"{NET}.2", "--interface", "stkdp{}"]
    command = [sys.executable, str(ROOT / "bench/peers/torch_ddp.py"), "--processes", str(n), *where, "--", "--arch", "llama",
               *(word for key, value in MODEL.items() for word in (f"--{key}", str(value))), "--seq", str(args.length),
               "--batch", str(args.micro_rows), "--accum", str(args.accumulate), "--precision", "bf16", "--steps", str(args.steps),
               "--warmup", str(args.warm_up)] + (["--compile"] if args.compile else [])
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        fail(f"torch_ddp.py failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stoker", default=str(ROOT / "build/stoker"))
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--network", choices=["here", "loopback", "1gbit"], nargs="+",
                        default=["here", "loopback", "1gbit"])
    parser.add_argument("--micro-rows", type=int, default=4, help="sequences in a micro-batch")
    parser.add_argument("--accumulate", type=int, default=4, help="micro-batches of each process in a step")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2, help="timed steps of each run; the median counts")
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="the peer under torch.compile")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.stoker = str(Path(args.stoker).resolve())
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        (place / "text").mkdir()
        source = (ROOT / "tests/golden/tokenizer/training.txt").read_text()
        for i in range(100):
            (place / f"text/{i}.txt").write_text(f"{i} " + source)
        subprocess.run([args.stoker, "data", "prepare", "text", "--out", "data", "--vocab-size", "400", "--held-out", "0"],
                       cwd=place, check=True, capture_output=True)
        for network in args.network:
            for n in args.processes:
                machines = Machines(n, "1gbit") if network == "1gbit" else None
                try:
                    mine, ratios, peer = [ours(place, n, network, machines, args)], [], None
                    for _ in range(args.rounds):
                        peer = theirs(n, machines, args)
                        mine.append(ours(place, n, network, machines, args))
                        ratios.append((mine[-2] + mine[-1]) / 2 / peer["tokens_per_s"])
                        say(f"  {network}, {n} processes: stoker {(mine[-2] + mine[-1]) / 2:.0f} tokens/s, {peer['peer']} DDP "
                            f"{peer['tokens_per_s']:.0f}: {ratios[-1]:.2f}x")
                finally:
                    if machines:
                        machines.remove()
                results.append({"network": network, "processes": n, "tokens_per_s": statistics.median(mine),
                                "peer": peer["peer"], "peer_tokens_per_s": peer["tokens_per_s"],
                                "ratio": statistics.median(ratios), "parameters": peer["n_params"],
                                "tokens_per_step": n * args.micro_rows * args.accumulate * args.length})
    if args.json:
        print(json.dumps({"date": date.today().isoformat(), "processor": platform.processor(), "rows": results}, indent=2))
        return
    print("| network | processes | tokens a step | Stoker, tokens/s | DDP, tokens/s | Stoker is |\n|---|---|---|---|---|---|")
    for r in results:
        print(f"| {r['network']} | {r['processes']} | {r['tokens_per_step']} | {r['tokens_per_s']:.0f} | "
              f"{r['peer_tokens_per_s']:.0f} | {r['ratio']:.2f}x as fast |")


main()
