#!/usr/bin/env python3
"""Parity of a volume set on one core, beside a plain copy of the same bytes in memory.

    tools/bench/parity.py [--data 10] [--parity 2] [--size 64] [--runs 7]

`encode` makes all parity rows of k buffers at once; `fold` adds one buffer after the other to rows
that are there, as images come; `recover` gives one lost buffer back from two syndromes. Rates are
data bytes read a second. The buffers (size MiB each) are larger than the caches together.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable

from common import MIB, seconds

from hsmfs.disc.parity import parity_of, recover

BLOCK = 256 * 1024
"""Bytes of each buffer that are worked on at once: all blocks of a stripe stay in the cache."""


def measure(k: int, m: int, size_mib: int, runs: int) -> dict[str, float]:
    """Medians in GB/s of data, on one core."""
    size = size_mib * MIB
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    data = [bytearray(os.urandom(size)) for _ in range(k)]
    rows = [bytearray(size) for _ in range(m)]
    spare = bytearray(size)
    code = parity_of(range(k), range(m))

    def copy() -> None:
        target = ctypes.addressof(ctypes.c_char.from_buffer(spare))
        for one in data:
            ctypes.memmove(target, ctypes.addressof(ctypes.c_char.from_buffer(one)), size)

    def encode() -> None:
        for at in range(0, size, BLOCK):
            end = at + BLOCK
            code.store(
                [memoryview(one)[at:end] for one in data],
                [memoryview(row)[at:end] for row in rows],
                BLOCK,
            )

    def fold() -> None:
        for index, one in enumerate(data):
            for at in range(0, size, BLOCK):
                end = at + BLOCK
                code.add(
                    index, memoryview(one)[at:end], [memoryview(row)[at:end] for row in rows], BLOCK
                )

    def give_back() -> None:
        for at in range(0, size, BLOCK):
            end = at + BLOCK
            syndromes = {r: memoryview(row)[at:end] for r, row in enumerate(rows)}
            recover((0, 1)[:m], 0, syndromes, BLOCK)

    works: dict[str, tuple[int, Callable[[], None]]] = {
        "memory copy": (k * size, copy),
        "encode": (k * size, encode),
        "fold": (k * size, fold),
        "recover": (m * size, give_back),
    }
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs + 1):
        for name, (count, work) in works.items():
            found[name].append(count / 1e9 / seconds(work))
    return {name: statistics.median(rates[1:]) for name, rates in found.items()}


def in_child(k: int, m: int) -> dict[str, float]:
    """As `measure` with its defaults, in a process of its own that may keep one core."""
    words = [sys.executable, __file__, "--data", str(k), "--parity", str(m), "--json"]
    return dict(json.loads(subprocess.run(words, check=True, capture_output=True).stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=int, default=10)
    parser.add_argument("--parity", type=int, default=2, choices=(1, 2))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(given.data, given.parity, given.size, given.runs)
    if given.json:
        print(json.dumps(found))
        return
    for name, rate in found.items():
        print(f"{name:<12} {rate:7.2f} GB/s   {rate / found['memory copy']:6.2f} of a memory copy")


if __name__ == "__main__":
    main()
