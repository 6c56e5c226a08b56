"""Golden losses of PPO, GRPO and RLOO: numbers of four steps, pinned before the module was taken apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment import (
    AdaptiveKL,
    ClippedPolicyLoss,
    FixedKL,
    GroupRelativeAdvantage,
    KLPenalty,
    LeaveOneOutAdvantage,
    PPOUpdates,
)
from tests.helpers.policy_training import ppo, train

SETTINGS: dict[str, Callable[[], dict[str, Any]]] = {
    "ppo": lambda: {
        "whiten_rewards": True,
        "kl": KLPenalty(AdaptiveKL(0.2, 0.01, 40)),
        "policy_loss": ClippedPolicyLoss(importance_cap=2.0, entropy_weight=0.01),
    },
    "grpo": lambda: {
        "advantage": GroupRelativeAdvantage(),
        "kl": KLPenalty(FixedKL(0.04), "k3", "loss"),
        "policy_loss": ClippedPolicyLoss(aggregation="sequence_mean"),
        "group_size": 4,
        "optimization": PPOUpdates(1, 1, 40),
    },
    "rloo": lambda: {
        "advantage": LeaveOneOutAdvantage(),
        "kl": KLPenalty(FixedKL(0.05)),
        "group_size": 4,
        "optimization": PPOUpdates(1, 1, 40),
    },
}
GOLDEN: dict[str, dict[str, list[float]]] = {
    "ppo": {
        "train/loss": [-0.1087222, -0.1715945, -0.04691611, -0.02746463],
        "train/gradient_norm": [0.9878394, 1.484137, 1.988897, 1.081646],
        "train/reward": [0.0625, 0.02083333, 0.0625, 0.1041667],
        "train/kl": [0, 0.2984937, 0.06338096, 0.5059085],
        "train/update_kl": [0.01397433, 0.006113229, 0.001043597, 0.0001653424],
        "train/critic/loss": [2.285984, 1.697539, 1.171527, 2.236168],
        "train/critic/gradient_norm": [3.451312, 4.049723, 5.07312, 4.418384],
        "validation/reward": [0.06666667, 0.06666667],
        "validation/kl": [0.1480946, 0.1525724],
        "validation/length": [5.4, 5.4],
    },
    "grpo": {
        "train/loss": [2.793968e-08, 0.0001848256, 0.0002573817, 0.0001943586],
        "train/gradient_norm": [0.6246395, 0.698809, 0.5777131, 0.5815019],
        "train/reward": [0.04166667, 0.03125, 0.0625, 0.08333334],
        "train/kl": [7.450581e-08, -0.02467719, -0.06772965, 0.1391653],
        "train/update_kl": [0, 0, 0, 0],
        "validation/reward": [0.03333334, 0.03333334],
        "validation/kl": [0.03039344, 0.03758496],
        "validation/length": [4.6, 4.6],
    },
    "rloo": {
        "train/loss": [0.002074076, 0.003861089, 0.00271484, -0.005330698],
        "train/gradient_norm": [0.07561869, 0.06527212, 0.08118905, 0.09465598],
        "train/reward": [0.04166667, 0.04166667, 0.0625, 0.08333334],
        "train/kl": [0, -0.01932609, -0.01364341, 0.2538136],
        "train/update_kl": [0, 0, 0, 0],
        "validation/reward": [0.03333334, 0.03333334],
        "validation/kl": [0.03212681, 0.04062814],
        "validation/length": [4.6, 4.6],
    },
}


@pytest.mark.end_to_end
@pytest.mark.parametrize("algorithm", list(SETTINGS))
def test_losses_norms_and_divergences_are_those_of_before(algorithm: str, tmp_path: Path) -> None:
    logged = train(str(tmp_path), settings=SETTINGS[algorithm](), options={"val_check_interval": 2})
    for name, expected in GOLDEN[algorithm].items():
        rows = logged.validations if name.startswith("validation/") else logged.steps
        assert [row[name] for row in rows] == pytest.approx(expected, rel=1e-4, abs=1e-6), name


@pytest.mark.end_to_end
def test_a_checkpoints_parameters_keep_their_names(tmp_path: Path) -> None:
    """Those of the decoder below `decoder`, `critic` and `reference_decoder`; means are no state."""
    module = ppo()
    train(str(tmp_path), module=module, options={"max_steps": 1, "val_check_interval": 1})
    prefixes = {name.split(".")[0] for name in module.state_dict()}
    assert prefixes == {"decoder", "critic", "reference_decoder"}
