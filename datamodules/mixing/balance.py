"""Source balance: the requested share of each source, caps on its epochs, and the share that is reached.

Weights alone repeat a small source until the model memorizes it. Caps on epochs keep the requested proportions where
there is enough text and give the rest of a capped source's share to the others. They depend on the length of the run,
so a longer run has another mixture from the sample at which the shorter one ended.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import InputError
from datamodules.mixing.mixture import BLOCK, Mixture, slots_of

"""Name of the report of a run's mixture in its folder."""


@dataclass
class Balance:
    """Corrections to the weights of sources.

    Weights of web 60, code 15, books 8, curated 7, academic 5 and Wikipedia 5 are a reasonable start.

    Args:
        temperature: T of p ~ size ** (1 / T) (Conneau & Lample 2019, section 3.1, and mT5, Xue et al. 2021, with
            1 / T = 0.7 and 0.3), sizes in tokens: 1 is proportional, more draws the sources together. It takes the
            place of weights; null takes the sources' `weight`.
        max_epochs: epochs of a source within trainer.max_steps, for all sources or by name; null for no cap. Up to 4
            epochs are nearly as good as new text (Muennighoff et al. 2023).

    Raises:
        InputError: for a temperature below 1 or a cap that is not positive.
    """

    temperature: float | None = None
    max_epochs: float | dict[str, float] | None = 4.0

    def __post_init__(self) -> None:
        if self.temperature is not None and not 1 <= self.temperature < float("inf"):
            raise InputError(f"balance.temperature={self.temperature}: must be at least 1, or null for weights")
        caps = self.max_epochs
        values = [] if caps is None else list(caps.values()) if isinstance(caps, dict) else [caps]
        if any(not value > 0 for value in values):
            raise InputError(f"balance.max_epochs={caps}: must be above 0, or null for no cap")

    def settings(self, weights: Mapping[str, float], samples: int | None) -> dict[str, Any]:
        """Settings that the mixture follows from, beside the text.

        Args:
            weights: weight of each source.
            samples: samples of the whole run; None where it has no end.

        Raises:
            InputError: for weights beside a temperature, a cap of an unknown source or of an endless run.
        """
        if self.temperature is not None and len(set(weights.values())) > 1:
            raise InputError(
                f"balance.temperature={self.temperature} and weights {dict(weights)}: they say the same thing twice, "
                "set it to null or leave the weights out"
            )
        if isinstance(self.max_epochs, dict) and (unknown := sorted({*self.max_epochs} - {*weights})):
            raise InputError(f"balance.max_epochs names {unknown[0]}, the sources are {', '.join(weights)}")
        if self.max_epochs is not None and samples is None:
            raise InputError(
                "balance.max_epochs caps what is repeated within trainer.max_steps, which is not set: set it, or "
                "max_epochs to null"
            )
        return {
            "weights": dict(weights),
            "temperature": self.temperature,
            "max_epochs": self.max_epochs,
            "samples": samples if self.max_epochs is not None else None,
        }

    def wanted(self, weights: Mapping[str, float], tokens: Mapping[str, int]) -> dict[str, float]:
        """Weight of each source before caps, on any scale; `tokens` are those of each source."""
        if self.temperature is None:
            return dict(weights)
        return {name: tokens[name] ** (1 / self.temperature) for name in weights}

    def slots(self, mixture: Mixture, wanted: Mapping[str, float], first: int, samples: int | None) -> np.ndarray:
        """Samples of each source in a block from sample `first` on, so that no cap is broken before the run ends.

        Args:
            mixture: mixture of the samples before `first`; changed from there on.
            wanted: weight of each source, from `wanted`.
            first: first sample of the new mixture.
            samples: of the whole run; None where nothing is capped.

        Returns:
            int64 [sources], 4,096 in all.

        Raises:
            InputError: when all sources together are too small for the run, or a source has no place in it.
        """
        names, caps = mixture.names, self.max_epochs
        slots = slots_of(wanted, names)
        mixture.change(first, slots)
        if caps is None or samples is None or samples <= first:
            return slots
        of_source = [caps.get(name, np.inf) if isinstance(caps, dict) else caps for name in names]
        most = np.array([mixture.sizes[name] for name in names]) * np.array(of_source)
        before = np.array(list(mixture.consumed(first).values()))
        capped = np.zeros(len(names), dtype=bool)
        while True:
            reached = np.array(list(mixture.consumed(samples).values()))
            over = (reached > most) & (slots > 0)
            if not over.any():
                return slots
            capped |= over
            # At least one slot less each time: the last block is cut, and its order says which slots it holds.
            fitting = np.floor(slots * np.maximum(most - before, 0) / np.maximum(reached - before, 1))
            slots = np.where(over, np.minimum(fitting, slots - 1), slots).astype(np.int64)
            if (never := (slots == 0) & (before == 0)).any():
                name = names[int(never.argmax())]
                raise InputError(
                    f"balance.max_epochs={caps} leaves source {name} ({mixture.sizes[name]} windows) less than "
                    f"1/{BLOCK} of the run's {samples} samples: raise its cap, add text or leave the source out"
                )
            if capped.all():
                raise InputError(
                    f"balance.max_epochs={caps}: the sources hold {int(most.sum())} samples within it, the run "
                    f"takes {samples}: raise it, lower trainer.max_steps or add text"
                )
            free = np.array([wanted[name] for name in names]) * ~capped
            shares = (BLOCK - slots[capped].sum()) * free / free.sum()
            given = np.floor(shares).astype(np.int64)
            given[np.argsort(given - shares, kind="stable")[: BLOCK - slots[capped].sum() - given.sum()]] += 1
            slots = np.where(capped, slots, given)
            mixture.change(first, slots)


def mixture_report(
    mixture: Mixture, wanted: Mapping[str, float], length: int, samples: int | None
) -> dict[str, dict[str, float]]:
    """Requested share of each source, and what is reached at the end of the run.

    Args:
        mixture: with all its changes.
        wanted: weight of each source before caps, from `Balance.wanted`.
        length: tokens in a window.
        samples: of the whole run; None counts a block.

    Returns:
        By source: `requested_share` (before caps), `share` (of samples), `windows` (that there are), `tokens` (learned
        from, repetitions included) and `epochs`.
    """
    total = samples or BLOCK
    reached = mixture.consumed(total)
    return {
        name: {
            "requested_share": wanted[name] / sum(wanted.values()),
            "share": reached[name] / total,
            "windows": mixture.sizes[name],
            "tokens": reached[name] * length,
            "epochs": reached[name] / mixture.sizes[name],
        }
        for name in mixture.names
    }


def format_mixture(report: Mapping[str, Mapping[str, float]]) -> str:
    """The report as a table."""
    lines = [f"{'mixture':<16}{'requested':>10}{'reached':>9}{'tokens':>10}{'epochs':>9}"]
    for name, row in report.items():
        tokens = f"{row['tokens'] / 1e6:.1f} M"
        lines.append(f"{name:<16}{row['requested_share']:>10.2%}{row['share']:>9.2%}{tokens:>10}{row['epochs']:>9.2f}")
    return "\n".join(lines)
