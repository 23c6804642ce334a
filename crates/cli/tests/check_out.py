#!/usr/bin/env python3
"""Recomputes, in numpy float64, what `tollgate run --out FILE [--backward]` wrote.

    check_out.py FILE DATA [--expect KEY=VALUE ...] [--report REPORT.json]
    check_out.py --self-test DATA_DIR

Shares no code with the Rust side: it reads the bytes itself, draws its own Philox numbers, makes
the experts as data/README.md says, and derives routing, outputs and all gradients from the stored
input and the stored upstream gradient alone.

Integers must be equal. The error that rounding can leave in every float is carried along with its
value (class Num), so that no tolerance is chosen by hand.

`--expect` holds the file's metadata to what the caller asked for; `--report` holds the JSON report
of the same run to the routing and losses found here.

Exit code: 0 all equal, 1 a difference, 2 unusable arguments or files, 3 a Python package missing.
"""

import argparse
import json
import math
import sys
from pathlib import Path

try:
    import numpy as np
    from safetensors import safe_open
except ImportError as error:
    print(f"check_out.py needs numpy and safetensors: {error}")
    sys.exit(3)

sys.dont_write_bytecode = True  # leave no __pycache__ among the sources
from outside_data import (
    Experts,
    Unusable,
    bf16_bits,
    load_data,
    noise_amplitude,
    noise_integers,
    philox,
    read_safetensors,
    round_to,
)


def library_agrees(path, tensors, metadata):
    """Whether the safetensors package reads the same names, values and metadata."""
    with safe_open(str(path), framework="np") as file:
        if set(file.keys()) != set(tensors) or (file.metadata() or {}) != metadata:
            return False
        return all(
            np.array_equal(file.get_tensor(name), array, equal_nan=array.dtype.kind == "f")
            for name, (dtype, array) in tensors.items()
            if dtype != "BF16"  # numpy has no such type
        )


# ---------------------------------------------------------------- values with their errors

U32 = 2.0**-24  # largest relative error of one float32 rounding
# Largest relative rounding error of an element type, and half its smallest number.
ROUND = {"f32": (U32, 2.0**-150), "f16": (2.0**-11, 2.0**-25), "bf16": (2.0**-8, 2.0**-134)}
MATH = 8 * U32  # what one exp, erf, division or sigmoid in float32 may add, relative
SIGMAS = 8  # errors beyond this many standard deviations do not happen by rounding


class Num:
    """v: the value in exact arithmetic; e: standard deviation of a float32 computation of it.

    To first order, with roundings as independent errors, uniform in one unit of the last place:
    their variances add. (Worst cases add as well, but through four matrix products they say
    nothing: in float32 they would let a gradient be wrong by its own size.) Where errors are not
    independent the largest case is taken: a sum of n products counts √n roundings of Σ|a||b|,
    which covers partial sums that grow, and functions count MATH for each call.
    """

    def __init__(self, v, e=0.0):
        self.v = np.asarray(v, np.float64)
        self.e = np.broadcast_to(np.asarray(e, np.float64), self.v.shape)

    def __getitem__(self, index):
        return Num(self.v[index], self.e[index])

    @property
    def T(self):
        return Num(self.v.T, self.e.T)

    def rounded(self, dtype="f32"):
        relative, absolute = ROUND[dtype]
        own = (relative * np.abs(self.v) + absolute) / math.sqrt(3)
        return Num(self.v, np.hypot(self.e, own))

    def __add__(self, other):
        other = other if isinstance(other, Num) else Num(other)
        return Num(self.v + other.v, np.hypot(self.e, other.e)).rounded()

    def __neg__(self):
        return Num(-self.v, self.e)

    def __sub__(self, other):
        return self + -other

    def __mul__(self, other):
        other = other if isinstance(other, Num) else Num(other)
        error = np.hypot(self.v * other.e, self.e * other.v)
        return Num(self.v * other.v, error).rounded()

    def __truediv__(self, other):
        quotient = self.v / other.v
        error = np.hypot(self.e, quotient * other.e) / np.abs(other.v)
        return Num(quotient, np.hypot(error, MATH * quotient))

    def __matmul__(self, other):
        roundings = math.sqrt((self.v.shape[-1] + 1) / 3) * U32
        variance = (roundings * (np.abs(self.v) @ np.abs(other.v))) ** 2
        if np.any(other.e):
            variance += self.v**2 @ other.e**2
        if np.any(self.e):
            variance += self.e**2 @ other.v**2
        return Num(self.v @ other.v, np.sqrt(variance))

    def sum(self, axis):
        roundings = math.sqrt((self.v.shape[axis] + 1) / 3) * U32
        own = roundings * np.abs(self.v).sum(axis=axis, keepdims=True)
        error = np.sqrt((self.e**2).sum(axis=axis, keepdims=True))
        return Num(self.v.sum(axis=axis, keepdims=True), np.hypot(error, own))


def softmax(z):
    """Logits off by less than e change a probability by a factor below exp(2e)."""
    shifted = np.exp(z.v - z.v.max(axis=1, keepdims=True))
    p = shifted / shifted.sum(axis=1, keepdims=True)
    # Subtracting the maximum (or lse) rounds a number of the size of the logits' spread.
    spread = np.abs(z.v).max(axis=1, keepdims=True) * 4 * U32
    off = z.e.max(axis=1, keepdims=True) + spread
    return Num(p, p * (np.expm1(2 * off) + z.v.shape[1] * U32 + MATH) + 2.0**-126)


def log_sum_exp(z):
    top = z.v.max(axis=1, keepdims=True)
    value = top + np.log(np.exp(z.v - top).sum(axis=1, keepdims=True))
    own = (z.v.shape[1] + 8) * U32 * (1 + np.abs(value))
    return Num(value, z.e.max(axis=1, keepdims=True) + own)


def sigmoid(z):
    """Slope at most 1/4."""
    value = 1 / (1 + np.exp(-z.v))
    return Num(value, z.e / 4 + MATH * value)


def erf(values):
    flat = np.fromiter(map(math.erf, values.ravel().tolist()), np.float64, values.size)
    return flat.reshape(values.shape)


def gelu(v):
    """(gelu, its derivative); an error of v moves them by their slopes, at most 1.13 and 0.80."""
    cdf = 0.5 * (1 + erf(v.v * math.sqrt(0.5)))
    pdf = np.exp(-0.5 * v.v**2) / math.sqrt(2 * math.pi)
    value = Num(v.v * cdf, 1.13 * v.e + MATH * np.abs(v.v))
    slope = Num(cdf + v.v * pdf, 0.80 * v.e + MATH * (1 + np.abs(v.v) * pdf))
    return value, slope


# ---------------------------------------------------------------- routing


class Options:
    """The metadata of the file, as types. Only routers that decide by logits alone."""

    def __init__(self, metadata):
        def get(key, default=None):
            value = metadata.get(key, default)
            if value is None:
                raise Unusable(f"the file's metadata has no '{key}'")
            return value

        self.router, self.dtype = get("router"), get("dtype")
        self.upcycle, self.upcycle_seed = get("upcycle"), int(get("upcycle_seed"))
        self.sigma = float(get("sigma"))
        self.alpha, self.c = float(get("balance_alpha")), float(get("z_coefficient"))
        self.gap = get("gap", "softmax")
        name, *rest = self.router.split(":")
        self.kind, self.k, self.tau = name, 2, None
        if name in ("top1", "top2") and not rest:
            self.kind, self.k = "topk", int(name[3:])
        elif name in ("topk", "sigmoid") and len(rest) == 1:
            self.k = int(rest[0])
        elif name == "adaptive" and len(rest) == 1:
            self.tau = float(np.float32(rest[0]))
        elif name == "second" and rest[:1] in (["all"], ["none"]) and len(rest) == 1:
            self.tau = {"all": -1.0, "none": 2.0}[rest[0]]
        elif name == "second" and rest[:1] == ["threshold"] and len(rest) <= 2:
            self.tau = float(np.float32((rest + ["0.2"])[1]))
        else:
            raise Unusable(f"router '{self.router}' is not one that this script can recompute")
        one_or_two = self.kind in ("adaptive", "second")
        default = {"sigmoid": "selected", "second": "top2"}.get(self.kind, "prob")
        self.weights = get("weights", default)
        self.balance_over = get("balance_over", "top1_only" if one_or_two else "first_choice")
        for key, choices in (
            ("dtype", ROUND),
            ("gap", ("softmax", "top2")),
            ("weights", ("prob", "selected", "top2")),
            ("balance_over", ("top1_only", "first_choice", "all")),
        ):
            if getattr(self, key) not in choices:
                raise Unusable(f"{key} is '{getattr(self, key)}', must be one of {list(choices)}")


class Routing:
    """Scores, decisions and the CSR table, from the logits [T, E]."""

    def __init__(self, o, z):
        num_tokens, num_experts = z.v.shape
        self.o, self.z = o, z
        self.scores = sigmoid(z) if o.kind == "sigmoid" else softmax(z)
        # Larger first, then the lower index: a stable sort of the negated logits.
        self.rank = np.argsort(-z.v, axis=1, kind="stable")
        ordered = np.take_along_axis(z.v, self.rank, axis=1)
        if o.kind in ("adaptive", "second"):
            p = np.take_along_axis(self.scores.v, self.rank[:, :2], axis=1)
            if o.kind == "second":  # share of the second in the top two
                distance = 1 / (1 + np.exp(ordered[:, 0] - ordered[:, 1])) - o.tau
            elif o.gap == "softmax":
                distance = o.tau - (p[:, 0] - p[:, 1])
            else:
                distance = o.tau - np.tanh((ordered[:, 0] - ordered[:, 1]) / 2)
            two = distance > 0 if o.kind == "second" else distance >= 0
            self.degree = 1 + two.astype(np.int64)
        else:
            distance = np.full(num_tokens, np.inf)
            self.degree = np.full(num_tokens, o.k)
        # A decision is safe when no admissible error of the logits can turn it: neither over the
        # threshold (logits off by e move a gap or a share by at most e), nor in the order of the
        # experts that matter.
        margin = z.e.max(axis=1)
        last = min(max(2, o.k), num_experts - 1)
        order = (ordered[:, :last] - ordered[:, 1 : last + 1]).min(axis=1, initial=np.inf)
        self.unsafe = int(np.sum((np.abs(distance) <= margin + MATH) | (order <= 2 * margin)))
        chosen = np.arange(num_experts)[None, :] < self.degree[:, None]
        self.token = np.repeat(np.arange(num_tokens), self.degree)
        self.expert = self.rank[chosen]
        self.token_offsets = np.concatenate([[0], np.cumsum(self.degree)])
        self.load = np.bincount(self.expert, minlength=num_experts)
        self.expert_offsets = np.concatenate([[0], np.cumsum(self.load)])
        self.mask = np.zeros((num_tokens, num_experts))
        self.mask[self.token, self.expert] = 1
        self.dense_weights = self.weights_over(self.mask)
        self.weights = self.dense_weights[self.token, self.expert]

    def weights_over(self, mask):
        """[T, E] weight of every expert in `mask`, 0 elsewhere."""
        if self.o.weights == "prob":
            return Num(self.scores.v * mask, self.scores.e * mask)
        base = mask if self.o.weights == "selected" else self.best_two()
        kept = Num(self.scores.v * base, self.scores.e * base)
        weights = kept / kept.sum(axis=1)
        # p / p is exactly 1.
        alone = base.sum(axis=1, keepdims=True) == 1
        return Num(weights.v * mask, weights.e * mask * ~alone)

    def best_two(self):
        both = np.zeros_like(self.mask)
        np.put_along_axis(both, self.rank[:, :2], 1, axis=1)
        return both

    def load_share(self):
        """[E] f_e of the balance loss."""
        num_experts = self.mask.shape[1]
        if self.o.balance_over == "all":
            return self.load / max(self.load.sum(), 1)
        first = self.rank[:, 0]
        if self.o.balance_over == "top1_only":
            first = first[self.degree == 1]
        return np.bincount(first, minlength=num_experts) / max(len(first), 1)

    def normalised(self):
        """[T, E] scores as a distribution: what the balance loss averages."""
        return self.scores / self.scores.sum(axis=1) if self.o.kind == "sigmoid" else self.scores

    def losses(self):
        """(balance, z), coefficients included."""
        num_experts = self.mask.shape[1]
        balance = (self.load_share() * self.normalised().v.mean(axis=0)).sum() * num_experts
        return self.o.alpha * balance, self.o.c * np.mean(log_sum_exp(self.z).v ** 2)

    def backward(self, g):
        """[T, E] gradient of the logits from g [A], the gradient of each weight, and the losses."""
        o, p = self.o, self.scores
        dense = Num(np.zeros_like(p.v), np.zeros_like(p.v))
        dense.v[self.token, self.expert] = g.v
        dense.e = np.zeros_like(p.v)
        dense.e[self.token, self.expert] = g.e
        one_minus_p = Num(np.ones_like(p.v)) - p
        if o.weights == "prob" and o.kind == "sigmoid":
            dz = dense * p * one_minus_p
        elif o.weights == "prob":
            dz = p * (dense - (p * dense).sum(axis=1))
        else:
            base = self.mask if o.weights == "selected" else self.best_two()
            w = self.weights_over(base)
            dz = w * (dense - (w * dense).sum(axis=1))
            # With one expert w = 1 and g − 1·g is exactly 0, in float32 as well.
            alone = base.sum(axis=1, keepdims=True) == 1
            dz = Num(dz.v * base * ~alone, dz.e * base * ~alone)
            if o.kind == "sigmoid":
                dz = dz * one_minus_p
        num_tokens, num_experts = p.v.shape
        f, q = self.load_share()[None, :], self.normalised()
        balance = q * (Num(np.broadcast_to(f, q.v.shape)) - (q * f).sum(axis=1))
        if o.kind == "sigmoid":
            balance = balance * one_minus_p
        z_loss = log_sum_exp(self.z) * softmax(self.z)
        scale = o.alpha * num_experts / num_tokens
        return dz + balance * scale + z_loss * (2 * o.c / num_tokens)


# ---------------------------------------------------------------- the comparison


class Comparison:
    """Prints one line a tensor and remembers whether all agreed."""

    def __init__(self, tensors):
        self.tensors, self.failed, self.seen = tensors, 0, set()
        print(f"{'':<37} {'root mean square of':<29} {'largest':>7}")
        print(
            f"{'tensor':<20} {'shape':<16} {'values':>9} {'errors':>9} {'allowed':>9} {'share':>7}"
        )

    def fetch(self, name, shape, dtype):
        """The tensor as an array, or None, told, if it is not what it must be."""
        self.seen.add(name)
        if name not in self.tensors:
            self.fail(name, "is missing")
            return None
        stored, array = self.tensors[name]
        if stored != dtype.upper() or array.shape != tuple(shape):
            got = f"{stored} {list(array.shape)}"
            self.fail(name, f"is {got}, must be {dtype.upper()} {list(shape)}")
            return None
        return array

    def fail(self, name, why):
        self.failed += 1
        print(f"{name:<20} FAILED: {why}")

    def exact(self, name, expected, dtype="i32"):
        expected = np.asarray(expected)
        array = self.fetch(name, expected.shape, dtype)
        if array is None:
            return
        wrong = np.argwhere(~(array == expected))  # a NaN is unequal
        if len(wrong):
            at = tuple(int(i) for i in wrong[0])
            self.fail(name, f"{len(wrong)} differ, {at} is {array[at]}, must be {expected[at]}")
        else:
            print(f"{name:<20} {list(array.shape)!s:<16} {'equal':>9}")

    def close(self, name, expected, dtype="f32"):
        """Whether every element lies within the bound of `expected`."""
        array = self.fetch(name, expected.v.shape, dtype)
        if array is None:
            return False
        error = np.abs(array.astype(np.float64) - expected.v)
        allowed = SIGMAS * expected.e + 2.0**-149
        used = error / allowed
        if not np.all(used <= 1):  # a NaN fails
            at = tuple(int(i) for i in np.argwhere(~(used <= 1))[0])
            share = np.mean(~(used <= 1))
            values = f"{array[at]:.9g}, must be {expected.v[at]:.9g} ± {allowed[at]:.2g}"
            self.fail(name, f"{share:.2%} differ, {at} is {values}")
            return False
        rms = [np.sqrt(np.mean(values**2)) for values in (expected.v, error, allowed)]
        shape = str(list(array.shape))
        print(f"{name:<20} {shape:<16}" + "".join(f" {r:>9.2e}" for r in rms), end="")
        print(f" {used.max(initial=0):>7.1%}")
        return True


def check(out, data_path, expect, report):
    """Compares a file with a recomputation; returns the number of differences."""
    data = load_data(data_path)
    tensors, metadata = read_safetensors(out)
    if not library_agrees(out, tensors, metadata):
        raise Unusable(f"{out}: the safetensors package reads something else than its bytes say")
    for key, value in expect.items():
        if metadata.get(key) != value:
            raise Unusable(f"metadata '{key}' is {metadata.get(key)!r}, must be {value!r}")
    o = Options(metadata)
    experts = Experts(data, o.upcycle, o.upcycle_seed, o.sigma)
    x = round_to(o.dtype, data["hidden"])
    router = data["router_weight"].astype(np.float64)
    print(f"{o.router}, weights {o.weights}, {o.dtype}, upcycle {o.upcycle}, ", end="")
    backward = any(name == "dy" or name.startswith("grad.") for name in tensors)
    print("backward" if backward else "forward only")
    c = Comparison(tensors)
    c.exact("x", x, o.dtype)

    z = Num(x) @ Num(router.T)
    if c.close("router_logits", z):
        # From here on the error of the logits is known: decisions are those of the exact logits,
        # and everything later allows for what the run's logits are off by, not for what they could.
        z = Num(z.v, np.abs(tensors["router_logits"][1] - z.v))
    r = Routing(o, z)
    if r.unsafe:
        c.fail("decisions", f"{r.unsafe} tokens lie too close to a tie to be checked")
    c.close("router_probs", r.scores)
    c.exact("token_offsets", r.token_offsets)
    c.exact("expert_indices", r.expert)
    c.exact("expert_offsets", r.expert_offsets)
    c.close("routing_weights", r.weights)
    if report is not None:
        compare_report(c, report, r)

    dy = None
    if backward:
        dy = c.fetch("dy", x.shape, o.dtype)
        if dy is not None and not (np.all(np.isfinite(dy)) and np.any(dy)):
            c.fail("dy", "is zero, or not finite everywhere")
            dy = None
    layer = Layer(o, experts, Num(x), r, None if dy is None else Num(dy))
    c.close("y", layer.y, o.dtype)
    if dy is not None:
        dlogits = r.backward(layer.dweights)
        dx = layer.dx + dlogits @ Num(router)
        c.close("grad.router_logits", dlogits)
        c.close("grad.router_weight", dlogits.T @ Num(x))
        c.close("grad.x", dx.rounded(o.dtype), o.dtype)
        for name, gradient in layer.gradients.items():
            c.close(f"grad.{name}", gradient)
    for name in sorted(set(tensors) - c.seen):
        c.fail(name, "was not checked")
    return c.failed


class Layer:
    """The experts on their rows, forward and, with dy, backward; one expert at a time.

    Stored intermediates are rounded to the run's type, as the layer's traits say: the up map
    before the activation, the activation, the rows of the down map, and each of their gradients.
    """

    def __init__(self, o, experts, x, r, dy):
        shape = x.v.shape
        y, vy = np.zeros(shape), np.zeros(shape)  # sums and their variances
        dx, vdx = np.zeros(shape), np.zeros(shape)
        g, eg = np.zeros(len(r.token)), np.zeros(len(r.token))
        stacks = {"up": [], "up_bias": [], "down": [], "down_bias": []}
        for e in range(experts.count):
            at = np.flatnonzero(r.expert == e)  # ascending: stable by token
            token, weight = r.token[at], r.weights[at][:, None]
            up, up_bias, down, down_bias = (Num(round_to(o.dtype, w)) for w in experts[e])
            rows = x[token]
            pre = (rows @ up.T + up_bias).rounded(o.dtype)
            value, slope = gelu(pre)
            act = value.rounded(o.dtype)
            out = (act @ down.T + down_bias).rounded(o.dtype)
            part = weight * out
            y[token] += part.v  # an expert has a token once
            vy[token] += part.e**2 + (U32 * part.v) ** 2
            if dy is None:
                continue
            product = dy[token] * out
            dot = product.sum(axis=1)
            g[at], eg[at] = dot.v[:, 0], dot.e[:, 0]
            dout = (weight * dy[token]).rounded(o.dtype)
            dact = (dout @ down).rounded(o.dtype)
            dpre = (dact * slope).rounded(o.dtype)
            drows = (dpre @ up).rounded(o.dtype)
            dx[token] += drows.v
            vdx[token] += drows.e**2 + (U32 * drows.v) ** 2
            stacks["up"].append(dpre.T @ rows)
            stacks["up_bias"].append(dpre.sum(axis=0)[0])
            stacks["down"].append(dout.T @ act)
            stacks["down_bias"].append(dout.sum(axis=0)[0])
        self.y = Num(y, np.sqrt(vy)).rounded(o.dtype)
        self.dx, self.dweights = Num(dx, np.sqrt(vdx)), Num(g, eg)
        self.gradients = {
            name: Num(np.stack([p.v for p in parts]), np.stack([p.e for p in parts]))
            for name, parts in stacks.items()
            if parts
        }


def compare_report(c, path, r):
    """The JSON report of the run: counts exactly, losses within 1e-5 (T·E float32 scores)."""
    report = json.loads(Path(path).read_text())
    found = {
        "router": (report["router"], r.o.router),
        "assignments": (report["assignments"], len(r.token)),
        "tokens_per_expert": (report["tokens_per_expert"], r.load.tolist()),
        "two_expert_share": (report["routing"]["two_expert_share"], np.mean(r.degree == 2)),
        "one_expert_share": (report["routing"]["one_expert_share"], np.mean(r.degree == 1)),
    }
    for name, (stored, expected) in found.items():
        if stored != expected:
            c.fail(f"report.{name}", f"is {stored}, must be {expected}")
    for name, expected in zip(("balance", "z"), r.losses()):
        stored = report["losses"][name]
        if not abs(stored - expected) <= 1e-5 * abs(expected):
            c.fail(f"report.losses.{name}", f"is {stored}, must be {expected}")


# ---------------------------------------------------------------- the script itself, tested


def self_test(folder):
    """Philox's published answers, and every value of expected.json that the check relies on."""
    folder, failures = Path(folder), []

    def same(what, actual, expected, relative=0.0):
        actual, expected = np.asarray(actual), np.asarray(expected)
        if relative:
            ok = np.all(np.abs(actual - expected) <= relative * np.maximum(np.abs(expected), 1e-2))
        else:
            ok = np.array_equal(actual, expected)
        if not ok:
            failures.append(f"{what}: {actual} instead of {expected}")

    ones = 0xFFFFFFFF
    for key, counter, words in (
        ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ones, ones), (ones,) * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ):
        same("philox", philox(key, counter), words)

    expected = json.loads((folder / "expected.json").read_text())
    data = load_data(folder / expected["file"]["name"])
    for name, entry in expected["tensors"].items():
        same(f"sum of {name}", data[name].astype(np.float64).sum(), entry["sum"], 1e-11)

    def moments(y):
        weighted = (np.arange(1, y.shape[1] + 1) * y).sum(axis=1)
        sums = (y.sum(axis=1), np.abs(y).sum(axis=1), (y * y).sum(axis=1), weighted)
        return np.column_stack(sums + (y[:, :4],))

    def stored(rows):
        keys = ("sum", "sum_abs", "sum_sq", "sum_index_weighted")
        return np.array([[row[key] for key in keys] + row["first4"] for row in rows])

    n = expected["upcycling_noise"]
    seed, sigma, e = n["seed"], n["sigma"], n["expert"]
    up, _, down, _ = Experts(data, "noise", seed, sigma)[e]
    for tensor, (name, weights) in enumerate((("w_up", up), ("w_down", down))):
        same(f"amplitude {name}", noise_amplitude(data[name], sigma), n[f"amplitude_{name}"], 1e-7)
        integers = noise_integers(seed, e, tensor, 8)
        same(f"noise of {name}", integers, n[f"noise_integers_{name}_first8"])
        bits = [f"{b:04x}" for b in bf16_bits(weights).ravel()[:8]]
        same(f"bits of {name}", bits, n[f"{name}_bf16_bits_first8"])
        same(f"sum of noisy {name}", weights.astype(np.float64).sum(), n[f"{name}_sum"], 1e-11)

    x = Num(data["hidden"].astype(np.float64))
    z = x @ Num(data["router_weight"].astype(np.float64).T)
    meta = {"router": "adaptive:0.1", "dtype": "f32", "upcycle": "noise", "sigma": str(sigma)}
    meta |= {"upcycle_seed": str(seed), "balance_alpha": "1", "z_coefficient": "1"}
    r, want = Routing(Options(meta), z), expected["routing_all"]
    same("expert_offsets", r.expert_offsets, want["expert_offsets_at_tau_0.1"])
    same("first choices", np.bincount(r.rank[:, 0]), want["first_choice_histogram"])
    balance, mean_square = r.losses()
    same("balance top1_only", balance, want["balance_top1_only"], 1e-11)
    same("mean squared lse", mean_square, want["mean_squared_log_sum_exp"], 1e-11)
    first = Routing(Options(meta | {"balance_over": "first_choice"}), z).losses()[0]
    same("balance first_choice", first, want["balance_first_choice"], 1e-11)
    for gap in ("softmax", "top2"):
        for tau, entry in want[f"top2_by_tau_gap_{gap}"].items():
            o = Options(meta | {"router": f"adaptive:{tau}", "gap": gap})
            same(f"{gap} {tau}", np.sum(Routing(o, z).degree == 2), entry["top2_tokens"])
    want = expected["routing"]
    count = want["token_offsets"][-1]
    same("token_offsets", r.token_offsets[: want["num_tokens"] + 1], want["token_offsets"])
    same("expert_indices", r.expert[:count], want["expert_indices"])
    same("routing_weights", r.weights.v[:count], want["routing_weights"], 1e-11)
    same("logits", z.v[0], want["router_logits_token0"], 1e-11)

    # The layer, on the first eight tokens; float64 throughout, so the types' roundings are absent.
    few = Num(x.v[:8])
    for mode in ("noise", "partition"):
        o = Options(meta | {"upcycle": mode})
        layer = Layer(o, Experts(data, mode, seed, sigma), few, Routing(o, z[:8]), None)
        want = stored(expected[f"upcycling_{mode}"]["moe_output_at_tau_0.1"])
        same(f"output, {mode}", moments(layer.y.v), want, 1e-11)
    o = Options(meta | {"upcycle": "copy", "router": "top2", "weights": "selected"})
    layer = Layer(o, Experts(data, "copy", 0, 0.0), few, Routing(o, z[:8]), None)
    same("output, copy", moments(layer.y.v), stored(expected["dense_ffn"]["tokens"]), 1e-11)

    for failure in failures:
        print(f"FAILED: {failure}")
    print("self-test: " + (f"{len(failures)} failures" if failures else "passed"))
    return len(failures)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", help="what `tollgate run --out` wrote")
    parser.add_argument("data", nargs="?", help="data/minilm-layer3.safetensors")
    parser.add_argument("--expect", metavar="KEY=VALUE", action="append", default=[])
    parser.add_argument("--report", metavar="JSON", help="what `--json` printed")
    parser.add_argument("--self-test", metavar="DATA_DIR")
    arguments = parser.parse_args()
    try:
        if arguments.self_test:
            return 1 if self_test(arguments.self_test) else 0
        if not arguments.file or not arguments.data:
            parser.error("FILE and DATA are needed")
        expect = {}
        for pair in arguments.expect:
            key, separator, value = pair.partition("=")
            if not separator:
                parser.error(f"--expect {pair}: must be KEY=VALUE")
            expect[key] = value
        failed = check(arguments.file, arguments.data, expect, arguments.report)
    except (Unusable, OSError, KeyError, ValueError) as error:
        print(f"check_out.py: {type(error).__name__}: {error}")
        return 2
    print("agrees" if failed == 0 else f"{failed} differences")
    return 0 if failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
