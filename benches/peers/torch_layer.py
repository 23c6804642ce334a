#!/usr/bin/env python3
"""A Mixture-of-Experts layer as a plain loop of PyTorch linear layers, timed on the CPU.

The layer is the one that `benches/benches/layer.rs` times: a linear router, softmax, the best one
or two experts of every token, experts of two linear layers with GELU between them, a weighted sum.
Sizes default to BERT-base with 16 experts. Two forms:

- `loop`: for every expert, find its tokens, run its two layers, add the weighted result;
- `sorted`: order the tokens by expert once, run every expert on its slice, add everything at once.

Prints one JSON object a line: router, dtype, form, assignments, seconds (best and median of the
samples), and gflops, the rate of useful operations at the best time, counted as our benchmark does.

Needs the package `torch` (see docs/BENCHMARKING.md); nothing else.
"""
import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=3072)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--intermediate", type=int, default=3072)
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--routers", default="top2,forced:0.8,top1")
    parser.add_argument("--dtypes", default="f32,bf16")
    parser.add_argument("--samples", type=int, default=7)
    return parser.parse_args()


class Layer:
    """Random parameters whose activations keep a variance of about 1."""

    def __init__(self, args, dtype):
        generator = torch.Generator().manual_seed(1)

        def normal(*shape):
            fan_in = shape[-1]
            return (torch.randn(*shape, generator=generator) / fan_in**0.5).to(dtype)

        self.experts = args.experts
        self.router = normal(args.experts, args.hidden)
        self.up = [normal(args.intermediate, args.hidden) for _ in range(args.experts)]
        self.down = [normal(args.hidden, args.intermediate) for _ in range(args.experts)]

    def route(self, x, router):
        """Experts [A], tokens [A] and weights [A] of the assignments, in order of tokens."""
        probabilities = torch.softmax(F.linear(x, self.router).float(), dim=-1)
        k = 1 if router == "top1" else 2
        weights, experts = probabilities.topk(k, dim=-1)
        keep = torch.ones_like(experts, dtype=torch.bool)
        if router.startswith("forced:"):
            share = float(router.split(":")[1])
            draw = torch.rand(len(x), generator=torch.Generator().manual_seed(2))
            keep[:, 1] = draw >= share
        tokens = torch.arange(len(x)).unsqueeze(1).expand_as(experts)
        return experts[keep], tokens[keep], weights[keep].to(x.dtype)

    def expert(self, e, rows):
        return F.linear(F.gelu(F.linear(rows, self.up[e])), self.down[e])

    def loop(self, x, router):
        experts, tokens, weights = self.route(x, router)
        y = torch.zeros_like(x)
        for e in range(self.experts):
            (mine,) = torch.where(experts == e)
            if len(mine) == 0:
                continue
            out = self.expert(e, x[tokens[mine]])
            y.index_add_(0, tokens[mine], out * weights[mine].unsqueeze(1))
        return y

    def sorted(self, x, router):
        experts, tokens, weights = self.route(x, router)
        order = torch.argsort(experts, stable=True)
        counts = torch.bincount(experts, minlength=self.experts).tolist()
        tokens, weights = tokens[order], weights[order]
        slices = x[tokens].split(counts)
        outs = [self.expert(e, rows) for e, rows in enumerate(slices) if len(rows)]
        return torch.zeros_like(x).index_add_(0, tokens, torch.cat(outs) * weights.unsqueeze(1))

    def check(self, x, router, y, dtype):
        """The first token against float64, before anything is timed."""
        experts, tokens, weights = self.route(x, router)
        expected = torch.zeros(x.shape[1], dtype=torch.float64)
        row = x[:1].double()
        for a in torch.where(tokens == 0)[0].tolist():
            e = int(experts[a])
            inner = F.gelu(row @ self.up[e].double().T)
            expected += float(weights[a]) * (inner @ self.down[e].double().T)[0]
        error = (y[0].double() - expected).norm() / expected.norm()
        # A handful of roundings to the type, of random signs; in f32 the sums' own as well.
        allowed = 8 * torch.finfo(dtype).eps if dtype == torch.bfloat16 else 1e-5
        assert error <= allowed, f"{router}: off by {error:.2e} of the norm, allowed {allowed:.2e}"


def seconds(work, samples):
    for _ in range(2):
        work()
    times = []
    for _ in range(samples):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def main():
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    dtypes = {"f32": torch.float32, "bf16": torch.bfloat16}
    with torch.no_grad():
        for name in args.dtypes.split(","):
            dtype = dtypes[name]
            layer = Layer(args, dtype)
            generator = torch.Generator().manual_seed(3)
            x = torch.randn(args.tokens, args.hidden, generator=generator).to(dtype)
            for router in args.routers.split(","):
                assignments = len(layer.route(x, router)[0])
                flops = 2 * assignments * 2 * args.hidden * args.intermediate
                flops += 2 * args.tokens * args.hidden * args.experts
                for form in (layer.loop, layer.sorted):
                    layer.check(x, router, form(x, router), dtype)
                    times = seconds(lambda: form(x, router), args.samples)
                    report = {
                        "router": router,
                        "dtype": name,
                        "form": form.__name__,
                        "torch": torch.__version__,
                        "threads": args.threads,
                        "assignments": assignments,
                        "best_s": min(times),
                        "median_s": statistics.median(times),
                        "gflops": flops / min(times) / 1e9,
                    }
                    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
