"""Failures to expect, and how often to save so that least is lost.

Failures are taken as independent and memoryless, the assumption behind Young's and Daly's intervals; real ones come in
clusters, which makes the plan a little pessimistic about the number and optimistic about each one's length.
"""

import math
from dataclasses import dataclass

from errors import InputError


@dataclass(frozen=True)
class Reliability:
    """What failures cost.

    Attributes:
        mtbf_hours: of the whole run: hours between interruptions.
        failures: expected in the run.
        interval_seconds: between checkpoints.
        lost_share: of the time: saving, steps lost, restarts.
    """

    mtbf_hours: float
    failures: float
    interval_seconds: float
    lost_share: float


def run_mtbf(device_mtbf: float, devices: int) -> float:
    """Mean time between interruptions of a run that stops with any of its devices: MTBF / devices, in its unit."""
    return device_mtbf / devices


def young_interval(save_seconds: float, mtbf_seconds: float) -> float:
    """Seconds between checkpoints, sqrt(2 d M) (Young 1974).

    Args:
        save_seconds: d, that training stands still for one. mtbf_seconds: M.
    """
    return math.sqrt(2 * save_seconds * mtbf_seconds)


def daly_interval(save_seconds: float, mtbf_seconds: float) -> float:
    """Seconds between checkpoints, sqrt(2 d M) (1 + sqrt(d / 2M) / 3 + (d / 2M) / 9) - d for d < 2 M, else M (Daly
    2006, equation 37).

    Args:
        save_seconds: d. mtbf_seconds: M.
    """
    if save_seconds >= 2 * mtbf_seconds:
        return mtbf_seconds
    ratio = save_seconds / (2 * mtbf_seconds)
    return young_interval(save_seconds, mtbf_seconds) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - save_seconds


def lost_share(interval: float, save_seconds: float, mtbf_seconds: float, restart_seconds: float) -> float:
    """Share of the time that is not training: d / (t + d) for saving, and (t / 2 + d + R) / M for each failure's lost
    steps and restart (first order, Daly 2006, section 2).

    Args:
        interval: t, seconds between checkpoints. save_seconds: d. mtbf_seconds: M. restart_seconds: R.
    """
    saving = save_seconds / (interval + save_seconds)
    return min(1.0, saving + (interval / 2 + save_seconds + restart_seconds) / mtbf_seconds)


def reliability(
    devices: int,
    hours: float,
    device_mtbf_hours: float,
    save_seconds: float,
    restart_seconds: float,
    least_interval: float = 0.0,
) -> Reliability:
    """What a run of `hours` of training on `devices` has to reckon with, at Daly's interval or the shortest there is.

    Raises:
        InputError: where failures come so often that the run gets nowhere.
    """
    mtbf = run_mtbf(device_mtbf_hours, devices)
    interval = max(daly_interval(save_seconds, mtbf * 3600), least_interval)
    lost = lost_share(interval, save_seconds, mtbf * 3600, restart_seconds)
    if lost >= 1:
        raise InputError(
            f"mtbf_hours={device_mtbf_hours:g}: {devices} devices are interrupted every {mtbf * 60:.1f} minutes, less "
            f"than saving ({save_seconds:.0f} s) and restarting ({restart_seconds:.0f} s) take: no step would be kept"
        )
    return Reliability(mtbf, hours / (1 - lost) / mtbf, interval, lost)
