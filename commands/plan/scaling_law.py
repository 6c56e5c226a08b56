"""`scaling_law`: scaling law of finished runs, from what they logged, with a picture.

Loss, parameters and tokens come from the runs' own files (`run.json`, `metrics.csv`, the saved configuration); nothing
is trained here. benchmarks/isoflop.py trains a family of small runs.
"""

from dataclasses import asdict, replace
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np

from callbacks.reports.scaling_chart import draw_scaling_law
from commands.plan.setup import setup_of
from commands.plan.units import format_count
from commands.run_facts import read_run_facts
from common.errors import InputError
from common.path_lists import PathList, path_list
from common.run_folder import read_config, read_metrics
from models.flops import matmul_parameters
from strategies.planner.hardware import read_hardware
from strategies.planner.scaling_law_fit import (
    Point,
    equal_compute,
    fit_scaling_law,
    isoflops,
    power_law,
    resampled_laws,
)
from strategies.planner.scaling_laws import ScalingLaw


def scaling_law(
    runs: PathList,
    output: str = "scaling_law.png",
    metric: str = "train/loss",
    last: float = 0.05,
    tolerance: float = 0.1,
    resamples: int = 100,
    json: bool = False,
) -> None:
    """Fit L(N, D) = E + A / N^alpha + B / D^beta to finished runs, and parabolas to those of equal compute.

    Args:
        runs: run folder or folders; `*` in a name matches anything.
        output: PNG chart to write.
        metric: the loss, a name in metrics.csv; nats per token, or bits per byte, whose law has its own E.
        last: share of the run at its end over which a training loss is averaged.
        tolerance: relative difference up to which runs count as of equal compute.
        resamples: bootstrap resamples of the runs, for intervals of the exponents; 0 for none.
        json: print JSON.
    """
    if not 0 < last <= 1:
        raise InputError(f"last={last}: must lie in (0, 1]")
    if not 0 <= tolerance < 1:
        raise InputError(f"tolerance={tolerance}: must lie in [0, 1)")
    if resamples < 0:
        raise InputError(f"resamples={resamples}: must not be negative, 0 draws none")
    if Path(output).suffix != ".png":
        raise InputError(f"output={output}: a PNG picture is written, give a name that ends in .png")
    # A run that two patterns match counts once.
    folders = {Path(name).resolve(): Path(name) for pattern in path_list(runs) for name in _matching(pattern)}.values()
    # Sorted: drawings go by number, and the result is that of the runs whatever their order.
    points = sorted((read_point(folder, metric, last) for folder in folders), key=lambda p: (p.parameters, p.tokens))
    law = fit_scaling_law(points)
    curves = isoflops(points, tolerance)
    draw_scaling_law(Path(output), points, law, curves)
    found: dict[str, Any] = {"law": asdict(law), "isoflops": [asdict(curve) for curve in curves]}
    found["error"] = sum(abs(law.loss(p.parameters, p.tokens) / p.loss - 1) for p in points) / len(points)
    laws = resampled_laws(points, law, resamples)
    found["intervals"] = intervals(laws)
    if len(curves) >= 2:
        found["optimal_parameters"] = power_law([c.flops for c in curves], [c.parameters for c in curves])
    if json:
        print(dumps(found, indent=1))
        return
    least, most = (format_count(choose(point.flops for point in points)) for choose in (min, max))
    print(f"{len(points)} runs, {least} to {most}FLOP")
    print(f"  L = {law.e:.3f} + {law.a:.4g} / N^{law.alpha:.3f} + {law.b:.4g} / D^{law.beta:.3f}")
    print(f"  mean error {found['error']:.2%}")
    if found["intervals"]:
        named = ", ".join(f"{name} {low:.2f} to {high:.2f}" for name, (low, high) in found["intervals"].items())
        print(f"  80 % of {len(laws)} resamples: {named}")
    for curve in curves:
        by_law, _ = law.optimum(curve.flops)
        print(
            f"  {format_count(curve.flops)}FLOP: best {format_count(curve.parameters)} parameters, "
            f"loss {curve.loss:.3f} (parabola); {format_count(by_law)} by the law"
        )
    for group in equal_compute(points, tolerance):
        if not any(group[0] in curve.points for curve in curves):
            print(f"  {format_count(group[0].flops)}FLOP: {len(group)} runs, no least loss between their sizes")
    if "optimal_parameters" in found:
        k, p = found["optimal_parameters"]
        print(f"  parabolas: N_opt = {k:.3g} C^{p:.3f}; law: C^{law.exponent:.3f}")
    print(f"picture: {output}")


def intervals(laws: list[ScalingLaw]) -> dict[str, tuple[float, float]]:
    """80 % intervals of E, the exponents, and the exponent of compute in the optimal number of parameters."""
    if not laws:
        return {}
    values = {name: [getattr(law, name) for law in laws] for name in ("e", "alpha", "beta", "exponent")}
    return {name: (float(np.quantile(found, 0.1)), float(np.quantile(found, 0.9))) for name, found in values.items()}


def _matching(pattern: str) -> list[str]:
    """Folders that a pattern matches, or the one it names."""
    if "*" not in pattern:
        return [pattern]
    root = Path("/") if pattern[0] == "/" else Path()
    found = sorted(str(path) for path in root.glob(pattern.lstrip("/")) if path.is_dir())
    if not found:
        raise InputError(f"runs={pattern}: no folder matches")
    return found


def read_point(folder: Path, metric: str, last: float = 0.05) -> Point:
    """Parameters, tokens and loss of a finished run.

    Args:
        folder: run folder.
        metric: name of the loss; a training loss is averaged over the last share of the steps, of a validation loss
            the last value counts.
        last: that share.

    Raises:
        InputError: for a folder without a finished run.
    """
    facts = read_run_facts(folder, f"runs={folder}", ("devices", "steps"))
    configuration = read_config(folder)
    hardware = read_hardware(Path(__file__).parents[2] / "configs/hardware/cpu.yaml")
    setup, steps = setup_of(configuration, hardware, facts["devices"]), facts["steps"]
    if steps < setup.steps:
        raise InputError(f"runs={folder}: it ended at step {steps} of {setup.steps}, finish it or leave it out")
    values = [(step, float(value)) for step, _, name, value in read_metrics(folder) if name == metric]
    if not values:
        raise InputError(f"runs={folder}: its metrics.csv has no {metric}")
    if metric.startswith("train/"):
        values = [(step, value) for step, value in values if step > steps * (1 - last)] or values[-1:]
        loss = sum(value for _, value in values) / len(values)
    else:
        loss = values[-1][1]
    return Point(matmul_parameters(setup.config), replace(setup, steps=steps).tokens, loss)
