#!/usr/bin/env python3
"""Our layer and PyTorch's plain loop side by side: rounds that take turns, best of each.

Every round runs `torch_layer.py` and then our benchmark of the same shape and routers, so that
whatever else the machine does hits both; the best rate over the rounds counts. Prints a Markdown
table of rates and ratios. Run it from the repository's root with a Python that has `torch`.
"""
import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys

UNIT = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
# bert-top2/f32/tollgate   251.3 ms   249.0 ms   230.5 GFLOP/s   85.1 % of f32 FMA
ROW = re.compile(
    r"^bert-(?P<router>\S+)/(?P<dtype>\w+)/tollgate\s+(?P<median>[\d.]+) (?P<median_unit>\w+)"
    r"\s+(?P<best>[\d.]+) (?P<best_unit>\w+)\s+(?P<rate>[\d.]+) GFLOP/s\s+(?P<share>[\d.]+) % of"
)


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--routers", default="top2,forced:0.8,top1")
    parser.add_argument("--dtypes", default="f32,bf16")
    parser.add_argument("--binary", help="a built layer benchmark, instead of `cargo bench`")
    args = parser.parse_args()
    names = args.routers.split(",")
    script = pathlib.Path(__file__).with_name("torch_layer.py")
    torch = [sys.executable, str(script), "--threads", str(args.threads)]
    torch += ["--routers", args.routers, "--dtypes", args.dtypes]
    pattern = "|".join(re.escape(n) for n in names)
    types = "|".join(args.dtypes.split(","))
    ours = ["env", f"TOLLGATE_BENCH_THREADS={args.threads}"]
    if args.binary:
        ours += [args.binary, "--bench"]
    else:
        ours += "cargo bench -q -p tollgate-benches --bench layer --".split()
    ours += [f"^layer_forward/bert-({pattern})/({types})/tollgate$"]

    best = collections.defaultdict(float)
    limits, versions = "", set()
    for number in range(args.rounds):
        for line in run(torch).splitlines():
            report = json.loads(line)
            versions.add(report["torch"])
            key = (report["router"], report["dtype"], report["form"])
            best[key] = max(best[key], report["gflops"])
        output = run(ours)
        # The last table of the output is the one with the final limits.
        for row in filter(None, map(ROW.match, output.splitlines())):
            median = float(row["median"]) * UNIT[row["median_unit"]]
            fastest = float(row["best"]) * UNIT[row["best_unit"]]
            key = (row["router"], row["dtype"], "ours")
            best[key] = max(best[key], float(row["rate"]) * median / fastest)
        limits = output[output.rfind("limits of this machine") :].split("\n\n")[0]
        print(f"round {number + 1} of {args.rounds} done", file=sys.stderr)

    print(f"\n{limits}\n\nPyTorch {', '.join(sorted(versions))}\n")
    print("| router | dtype | ours, GFLOP/s | torch loop | torch sorted | ours / better torch |")
    print("|---|---|---|---|---|---|")
    for dtype in args.dtypes.split(","):
        for router in names:
            a, b, c = (best[router, dtype, form] for form in ("ours", "loop", "sorted"))
            ratio = f"{a / max(b, c):.2f}" if max(b, c) > 0 else "-"
            print(f"| {router} | {dtype} | {a:.1f} | {b:.1f} | {c:.1f} | {ratio} |")


if __name__ == "__main__":
    main()
