"""Reliability of a run: expected failures and the checkpoint interval that loses least (Young, Daly).

Failures are taken as independent and memoryless, the assumption behind Young's and Daly's intervals; real ones come in
clusters, which makes the plan a little pessimistic about the number and optimistic about each one's length.
"""

import math
from dataclasses import dataclass

from common.errors import InputError


@dataclass(frozen=True)
class Saving:
    """Cost of checkpoints.

    Attributes:
        still_seconds: d, training time lost to one checkpoint.
        writing_seconds: w, until it is whole; as long as d where training waits for that.
        step_seconds: of an optimizer step, the shortest interval.
    """

    still_seconds: float
    writing_seconds: float
    step_seconds: float

    def still_at(self, interval: float) -> float:
        """Seconds of training lost per checkpoint at an interval: one waits until the one before is written."""
        return self.still_seconds + max(0.0, self.writing_seconds - self.still_seconds - interval)


@dataclass(frozen=True)
class Reliability:
    """Cost of failures.

    Attributes:
        mtbf_hours: of the whole run: hours between interruptions.
        failures: expected in the run.
        interval_seconds: between checkpoints, that the run has.
        lost_share: of the time at that interval: saving, steps lost, restarts.
        advised_seconds: the interval that loses least.
        advised_share: of the time, lost at that one.
    """

    mtbf_hours: float
    failures: float
    interval_seconds: float
    lost_share: float
    advised_seconds: float
    advised_share: float


def run_mtbf(device_mtbf: float, devices: int) -> float:
    """Mean time between interruptions of a run that stops with any of its devices: MTBF / devices, in its unit."""
    return device_mtbf / devices


def young_interval(save_seconds: float, mtbf_seconds: float) -> float:
    """Seconds between checkpoints, sqrt(2 d M) (Young 1974).

    Args:
        save_seconds: d, training time lost to one checkpoint. mtbf_seconds: M.
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


def lost_share(interval: float, saving: Saving, mtbf_seconds: float, restart_seconds: float) -> float:
    """Share of the time that is not training: d / (t + d) for saving, and (t / 2 + w + R) / M for each failure's lost
    steps and restart (first order, Daly 2006, section 2): those since the last checkpoint, of which the newest is not
    yet whole for w.

    Args:
        interval: t, seconds between checkpoints.
        saving: d and w.
        mtbf_seconds: M.
        restart_seconds: R.
    """
    still = saving.still_at(interval)
    lost = interval / 2 + saving.writing_seconds + restart_seconds
    return min(1.0, still / (interval + still) + lost / mtbf_seconds)


def reliability(
    devices: int,
    hours: float,
    device_mtbf_hours: float,
    saving: Saving,
    restart_seconds: float,
    interval: float | None = None,
) -> Reliability:
    """Failures and lost time of a run of `hours` of training on `devices`.

    Args:
        devices: of the run.
        hours: of training without interruptions.
        device_mtbf_hours: mean time between interruptions of one.
        saving: what a checkpoint costs.
        restart_seconds: from an interruption to the next step.
        interval: seconds between the run's checkpoints; None takes the advised one: Daly's, one at a time and none
            within a step.

    Raises:
        InputError: where failures come so often that the run gets nowhere.
    """
    mtbf = run_mtbf(device_mtbf_hours, devices)
    least = max(saving.step_seconds, saving.writing_seconds)
    advised = max(daly_interval(saving.still_seconds, mtbf * 3600), least)
    taken = advised if interval is None else interval
    advised_share, lost = (lost_share(t, saving, mtbf * 3600, restart_seconds) for t in (advised, taken))
    if advised_share >= 1:
        raise InputError(
            f"mtbf_hours={device_mtbf_hours:g}: {devices} devices are interrupted every {mtbf * 60:.1f} minutes, less "
            f"than saving ({saving.writing_seconds:.0f} s) and restarting ({restart_seconds:.0f} s) take: no step "
            "would be kept"
        )
    if lost >= 1:
        raise InputError(
            f"a checkpoint every {taken / 60:.1f} minutes: {devices} devices are interrupted every {mtbf * 60:.1f} "
            f"minutes, no step would be kept; lower every_steps of callbacks.Checkpoints to "
            f"{max(1, round(advised / saving.step_seconds))}"
        )
    return Reliability(mtbf, hours / (1 - lost) / mtbf, taken, lost, advised, advised_share)
