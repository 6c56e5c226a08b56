"""Charts of reinforcement learning: reward, KL to the reference, lengths, repetitions and entropy.

A reward that rises says little by itself. The charts beside it show the monitored reward, the KL that was paid for it,
and what reward hacking does to lengths, repetitions and entropy.
"""

import numpy as np

Curve = tuple[np.ndarray, np.ndarray]
Chart = tuple[str, dict[str, Curve], bool]
"""Title, label to curve, and whether the running mean is drawn."""

BOTH = {"train": "training", "validation": "validation"}


def rollout_charts(curves: dict[str, Curve]) -> list[Chart]:
    """Charts over steps for which there are curves; none where nothing was rolled out."""
    if "train/responses_per_second" not in curves:
        return []

    def named(names: dict[str, str]) -> dict[str, Curve]:
        return {label: curves[name] for name, label in names.items() if name in curves}

    def both(name: str, said: str = "") -> dict[str, str]:
        return {f"{stage}/{name}": f"{said}{label}" for stage, label in BOTH.items()}

    wanted = [
        ("Reward", named(both("reward") | both("monitored_reward", "monitored, "))),
        ("KL to the reference, nats per response", named(both("kl"))),
        ("Entropy, nats per token", named({"train/entropy": "entropy"})),
        ("Length of responses, tokens", named(both("length"))),
        ("Shares of responses", named(both("stopped", "stopped, ") | both("repetition", "n-grams repeated, "))),
        ("Clipped tokens, share", named({"train/clip_fraction": "clipped"})),
        ("Explained variance of the critic", named({"train/critic/explained_variance": "critic"})),
        ("Trainer's over sampler's probability", named({
            f"train/drift/{name}": label
            for name, label in (("smallest_ratio", "smallest"), ("ratio", "mean"), ("largest_ratio", "largest"))
        })),
        ("Seconds per step", named({f"train/seconds/{name}": name for name in ("generation", "scoring", "learning")})),
    ]  # fmt: skip
    return [(title, lines, True) for title, lines in wanted if lines]


def frontier(curves: dict[str, Curve]) -> dict[str, Curve]:
    """Validation reward, and monitored reward, by KL divergence in place of steps: what a nat bought; empty where one
    is not known."""
    if "validation/kl" not in curves:
        return {}
    order = np.argsort(curves["validation/kl"][1], kind="stable")
    found = {}
    for name in ("reward", "monitored_reward"):
        values = curves.get(f"validation/{name}")
        if values is not None and len(values[1]) == len(order):
            found[name] = (curves["validation/kl"][1][order], values[1][order])
    return found
