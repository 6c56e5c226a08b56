"""Scaling-law chart: the runs, the law's curves through them and the parabolas of equal compute.

Takes points and curves as they come, by their names, so that it need not know who fitted them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def draw_scaling_law(path: Path, points: Sequence[Any], law: Any, curves: Sequence[Any]) -> None:
    """Loss over parameters, one color a compute; beside it the law's prediction over what was measured.

    Args:
        path: PNG to write.
        points: each with `parameters`, `tokens`, `loss` and `flops`.
        law: with `loss(parameters, tokens)`.
        curves: parabolas, each with `flops`, `points`, `coefficients`, `parameters` and `loss`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    colors = [f"C{i}" for i in range(10)]
    in_curves = {id(point) for curve in curves for point in curve.points}
    others = [point for point in points if id(point) not in in_curves]
    for number, curve in enumerate(curves):
        color = colors[number % len(colors)]
        sizes = np.array([point.parameters for point in curve.points])
        left.scatter(sizes, [point.loss for point in curve.points], color=color, s=22, label=f"{curve.flops:.1e} FLOPs")
        x = np.linspace(np.log10(sizes.min()), np.log10(sizes.max()), 100)
        left.plot(10**x, np.polyval(curve.coefficients, x), color=color, linewidth=1)
        left.plot(10**x, [law.loss(n, curve.flops / 6 / n) for n in 10**x], color=color, linewidth=1, linestyle=":")
        left.scatter([curve.parameters], [curve.loss], color=color, marker="*", s=110, zorder=3)
    if others:
        left.scatter([p.parameters for p in others], [p.loss for p in others], color="0.6", s=14, label="other runs")
    left.set(xscale="log", xlabel="parameters", ylabel="loss", title="parabolas and their minima; dotted: the law")
    left.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    left.xaxis.set_major_formatter(EngFormatter(sep=""))
    left.xaxis.set_minor_formatter(NullFormatter())
    if curves or others:
        left.legend(fontsize=8)
    measured = np.array([point.loss for point in points])
    predicted = np.array([law.loss(point.parameters, point.tokens) for point in points])
    right.scatter(measured, predicted, s=22, color="C0")
    ends = [min(measured.min(), predicted.min()), max(measured.max(), predicted.max())]
    right.plot(ends, ends, color="0.5", linewidth=1)
    error = float(np.abs(predicted / measured - 1).mean())
    right.set(xlabel="measured loss", ylabel="the law's", title=f"mean error {error:.2%}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
