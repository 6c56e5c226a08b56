"""Programs per second that a code reward runs: three statements, and one input with its output.

    python -m benchmarks.alignment.code_rewards

A right program with the imports that models like to write, as many runs at once as there are processors, the best of
three rounds because the machine is shared. The script uses the reward alone, so that it can be run on earlier versions.
Result: code_rewards.json holds three runs in turns with the version whose programs were interpreters of their own.
"""

import argparse
import json
import os
import time

import torch

from alignment import CodeTests
from alignment.rewards.base import Response

IMPORTS = "from typing import List\nimport math, collections, heapq, re, itertools, functools\n"
CASES = {
    "statements": (
        "def add(a, b): return a + b",
        ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", "assert add(2, 2) == 4"],
    ),
    "input and output": ("print(sum(map(int, input().split())))", [{"input": "1 2", "output": "3"}]),
}


def measure(responses: int) -> dict[str, float]:
    """Programs a second by kind of test."""
    reward = CodeTests()
    reward.prepare(torch.device("cpu"))
    rates = {}
    for name, (program, tests) in CASES.items():
        batch = [Response([1], [2], IMPORTS + program, "stop", {"tests": tests})] * responses
        reward(batch[: os.cpu_count()])
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            assert reward(batch).mean() == 1
            seconds.append(time.perf_counter() - start)
        rates[name] = round(responses / min(seconds), 1)
    return rates


def main() -> None:
    """Measure and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--responses", type=int, default=400)
    print(json.dumps(measure(parser.parse_args().responses)))


if __name__ == "__main__":
    main()
