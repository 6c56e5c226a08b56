"""Muon against PyTorch's own, and its orthogonalization against the singular value decomposition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from models.config import DecoderConfig
from models.initialization import build_decoder
from models.optimizers.muon import Muon, orthogonalize


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 24), columns=st.integers(1, 24), seed=st.integers(0, 100))
def test_orthogonalized_matrices_keep_their_directions(rows: int, columns: int, seed: int) -> None:
    """U S V^T becomes U S' V^T with S' between 0.6 and 1.3, but for what was nearly nothing."""
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    rotated = u.mT @ orthogonalize(matrix) @ vh.mT
    assert (rotated - rotated.diagonal().diag()).abs().max() < 1e-6
    values = rotated.diagonal()[s > 0.05 * s[0]]
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_muon_equals_torch_and_its_other_groups_equal_adamw() -> None:
    shape = DecoderConfig(vocabulary_size=32, width=16, layers=2, heads=2, key_value_heads=1, feed_forward_width=24)
    ours, theirs = build_decoder(shape), build_decoder(shape)
    muon = Muon(learning_rate=0.02, orthogonalize_in="bfloat16").build(ours.named_parameters())
    matrices = [p for name, p in theirs.named_parameters() if p.ndim == 2 and "layers." in name]
    others = [p for name, p in theirs.named_parameters() if p.ndim == 2 and "layers." not in name]
    vectors = [p for p in theirs.parameters() if p.ndim < 2]
    peers = [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=0.02, betas=(0.9, 0.95), weight_decay=0.1),
        torch.optim.AdamW(vectors, lr=0.02, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for mine, their in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            their.grad = mine.grad.clone()
        muon.step()
        for peer in peers:
            peer.step()
    for (name, mine), their in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # bfloat16 products of a batch of matrices and of one are rounded differently.
        rounding = 2e-3 if mine.ndim == 2 and "layers." in name else 1e-6
        torch.testing.assert_close(mine, their, rtol=0, atol=rounding, msg=name)
    assert len(muon.param_groups) == 3


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="weight_decay=nan"):
        Muon(weight_decay=float("nan"))
    with pytest.raises(InputError, match="momentum=1"):
        Muon(momentum=1)
