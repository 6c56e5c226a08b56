"""Compute-optimal model size and tokens of a budget of FLOPs, by published scaling laws.

Needs no configuration and no PyTorch, so that its result comes at once.
"""

import json
import math

from commands.plan.units import format_count
from common.errors import InputError
from strategies.planner.scaling_laws import BESIROGLU, HOFFMANN, ScalingLaw, over_training

LAWS = (HOFFMANN, BESIROGLU)


def compute_optimal(flops: float, as_json: bool = False) -> None:
    """Print the compute-optimal model size and tokens of a budget, and smaller models that reach the same loss.

    Args:
        flops: of the training.
        as_json: print JSON.

    Raises:
        InputError: where the budget is not a number above 0.
    """
    if not 0 < flops < math.inf:
        raise InputError(f"--budget {flops}: must be a number of FLOPs above 0, as 1e24")
    if as_json:
        found = {}
        for law in LAWS:
            parameters, tokens = law.optimum(flops)
            loss = law.loss(parameters, tokens)
            found[law.name] = {"parameters": parameters, "tokens": tokens, "loss": loss}
        print(json.dumps(found, indent=1))
        return
    for law in LAWS:
        print("\n".join(over_training_lines(law, flops)))


def over_training_lines(law: ScalingLaw, flops: float) -> list[str]:
    """Smaller models that reach the compute-optimal loss, with their compute."""
    parameters, tokens = law.optimum(flops)
    lines = [f"{law.name}", f"  loss {law.loss(parameters, tokens):.4f} nats per token, compute-optimal, reached by"]
    lines.append(f"  {'parameters':>12}{'tokens':>12}{'tokens/param.':>15}{'compute':>10}{'inference':>11}")
    return lines + [
        f"  {format_count(row.parameters):>12}{format_count(row.tokens):>12}{row.tokens / row.parameters:>15.0f}"
        f"{row.flops:>9.2f}x{row.share:>10.2f}x"
        for row in over_training(law, flops)
    ]
