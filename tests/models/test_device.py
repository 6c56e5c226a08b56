"""Hardware probes on the device that is there."""

import torch

from models.device import default_device, measured_matmul_peak


def test_measured_peak_is_a_speed() -> None:
    assert 1e8 < measured_matmul_peak(torch.device("cpu"), torch.float32, seconds=0.05) < 1e15


def test_the_default_device_can_hold_a_tensor() -> None:
    assert torch.ones(2, device=default_device()).sum().item() == 2
