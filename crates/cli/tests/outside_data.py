"""Reads safetensors files by their bytes and makes experts of one FFN, as data/README.md says.

Numpy only; used by check_out.py beside this file.
"""

import json
import math
import struct
from pathlib import Path

import numpy as np


class Unusable(Exception):
    """An argument or a file that cannot be checked at all."""


DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}


def read_safetensors(path):
    """({name: (dtype, array)}, metadata): 8 bytes of header length, JSON, then the data."""
    blob = Path(path).read_bytes()
    if len(blob) < 8:
        raise Unusable(f"{path}: {len(blob)} bytes are no safetensors file")
    (length,) = struct.unpack_from("<Q", blob)
    if length > len(blob) - 8:
        raise Unusable(f"{path}: header of {length} bytes in a file of {len(blob)}")
    try:
        header = json.loads(blob[8 : 8 + length])
    except ValueError as error:
        raise Unusable(f"{path}: header is not JSON: {error}") from error
    metadata = header.pop("__metadata__", {})
    data = memoryview(blob)[8 + length :]
    tensors, covered = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        if entry["dtype"] not in DTYPES:
            raise Unusable(f"{path}: {name} has dtype {entry['dtype']}")
        dtype, shape = np.dtype(DTYPES[entry["dtype"]]), entry["shape"]
        if not covered <= start <= end <= len(data):
            raise Unusable(f"{path}: {name} lies at {start}..{end} of {len(data)}, after {covered}")
        if math.prod(shape) * dtype.itemsize != end - start:
            raise Unusable(f"{path}: {name} {shape} does not fill {end - start} bytes")
        covered = end
        raw = np.frombuffer(data[start:end], dtype).reshape(shape)
        tensors[name] = (entry["dtype"], bf16_to_f32(raw) if entry["dtype"] == "BF16" else raw)
    return tensors, metadata


def load_data(path):
    """The tensors of the data file as float32 and i32."""
    tensors, _ = read_safetensors(path)
    return {name: array for name, (_, array) in tensors.items()}


def bf16_to_f32(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def bf16_bits(values):
    """bfloat16 bits of finite float32 values, rounded to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def round_to(dtype, values):
    """float64 copies of `values` (exact in float32) rounded to an element type."""
    values = np.asarray(values, np.float32)
    if dtype == "f16":
        values = values.astype(np.float16)
    elif dtype == "bf16":
        values = bf16_to_f32(bf16_bits(values))
    return values.astype(np.float64)


def philox(key, counter):
    """Four uint32 arrays for a counter of four (arrays of) uint32; key is a pair of integers."""
    mask = np.uint64(0xFFFFFFFF)
    c = [np.asarray(word, np.uint64) for word in counter]
    k0, k1 = key
    for _ in range(10):
        low, high = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (high >> np.uint64(32)) ^ c[1] ^ np.uint64(k0),
            high & mask,
            (low >> np.uint64(32)) ^ c[3] ^ np.uint64(k1),
            low & mask,
        ]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [word.astype(np.uint32) for word in c]


def noise_integers(seed, expert, tensor, count):
    """The integers n of data/README.md: one per element, in [-2^23, 2^23)."""
    blocks = np.arange(-(-count // 4), dtype=np.uint64)
    words = philox((seed & 0xFFFFFFFF, 0), (blocks, expert, tensor, 0))
    return (np.stack(words, axis=1).ravel()[:count] >> 8).astype(np.int32) - 2**23


def noise_amplitude(weights, sigma):
    """float32 step of the noise of a matrix."""
    rms = math.sqrt(np.mean(weights.astype(np.float64) ** 2))
    return np.float32(sigma * rms * math.sqrt(12.0) * 2.0**-24)


def with_noise(weights, seed, sigma, expert, tensor):
    """float32 multiply, float32 add, one rounding to bfloat16."""
    n = noise_integers(seed, expert, tensor, weights.size).reshape(weights.shape)
    step = noise_amplitude(weights, sigma) * n.astype(np.float32)
    return bf16_to_f32(bf16_bits(weights + step))


class Experts:
    """One dense FFN made into E experts; `[e]` gives (up [I,H], up_bias, down [H,I], down_bias)."""

    def __init__(self, data, upcycle, seed, sigma):
        self.data, self.upcycle, self.seed, self.sigma = data, upcycle, seed, sigma
        self.count = data["router_weight"].shape[0]
        if upcycle not in ("copy", "noise", "partition"):
            raise Unusable(f"upcycle is '{upcycle}', must be copy, noise or partition")

    def __getitem__(self, e):
        d = self.data
        if self.upcycle == "partition":
            own = np.flatnonzero(d["neuron_expert"] == e)
            return d["w_up"][own], d["b_up"][own], d["w_down"][:, own], d["b_down"] / self.count
        up, down = d["w_up"], d["w_down"]
        if self.upcycle == "noise":
            up = with_noise(up, self.seed, self.sigma, e, 0)
            down = with_noise(down, self.seed, self.sigma, e, 1)
        return up, d["b_up"], down, d["b_down"]
