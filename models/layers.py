"""RMSNorm, SwiGLU and rotary position embedding (RoPE).

Plain PyTorch without fused kernels: each layer reads as its equation, and `torch.compile` fuses where it is used; an
eager step launches more kernels for it.

Shape suffixes: B batch, T time (positions in a sequence), C model width, H heads, D head width, F feed-forward width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import DecoderConfig, RotaryScaling


class RMSNorm(nn.Module):
    """Root-mean-square normalization (Zhang & Sennrich 2019, eq. 4): x / rms(x) * weight.

    Args:
        width: size of the last dimension.
        epsilon: added to the mean square; 1e-5 is Llama's.
    """

    def __init__(self, width: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))

    @classmethod
    def of(cls, config: DecoderConfig, width: int) -> "RMSNorm":
        """Norm of a decoder's family."""
        return cls(width, config.norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020, eq. 6): w2(silu(w1 x) * w3 x), without biases.

    Args:
        width: model width C.
        feed_forward_width: inner width F; Llama takes about 8/3 C.
    """

    def __init__(self, width: int, feed_forward_width: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, feed_forward_width, bias=False)
        self.w2 = nn.Linear(feed_forward_width, width, bias=False)
        self.w3 = nn.Linear(width, feed_forward_width, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x_BTC)) * self.w3(x_BTC))


def rotary_frequencies(config: DecoderConfig, device: torch.device | None = None) -> Tensor:
    """Rotary frequencies in radians per position, float32 [D / 2] (RoPE, Su et al. 2021, section 3.2.2)."""
    assert config.head_width is not None
    exponents = torch.arange(0, config.head_width, 2, dtype=torch.float32, device=device) / config.head_width
    frequencies = 1.0 / config.rope_theta**exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    if scaling.kind == "yarn":
        keep = _yarn_kept(config, scaling, device)
        return frequencies / scaling.factor * (1 - keep) + frequencies * keep
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    turns = scaling.original_positions * frequencies / (2 * math.pi)
    # 1 keeps the frequency: its wavelength fits often into the trained context. 0 divides it.
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - keep) * frequencies / scaling.factor + keep * frequencies


def _yarn_kept(config: DecoderConfig, scaling: RotaryScaling, device: torch.device | None) -> Tensor:
    """Share of each frequency that YaRN keeps, float32 [D / 2] (Peng et al. 2023, eq. 18, by dimension)."""
    assert config.head_width is not None
    width = config.head_width

    def dimension(turns: float) -> float:
        """Index of the frequency that turns so often in the trained context."""
        return width * math.log(scaling.original_positions / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    span = high - low or 0.001  # as transformers; a step where both bounds fall on one dimension
    return 1 - ((torch.arange(width // 2, dtype=torch.float32, device=device) - low) / span).clamp(0, 1)


def rotary_gain(config: DecoderConfig) -> float:
    """Factor of queries and keys that belongs to a rotary scaling: YaRN's attention factor, else 1."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return 0.1 * math.log(scaling.factor) + 1 if scaling.factor > 1 else 1.0


def compute_dtype(parameter: Tensor) -> torch.dtype:
    """Dtype of matrix products with a parameter: that of autocast where it is on, else the parameter's."""
    device = parameter.device.type
    is_mixed = device != "meta" and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if is_mixed else parameter.dtype


def rotary_angles(positions_BT: Tensor, config: DecoderConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary angles (Su et al. 2021, eq. 15) times `rotary_gain`, computed in float32.

    Args:
        positions_BT: integer position of each token within its document.
        config: gives the frequencies.
        dtype: dtype of queries and keys.

    Returns:
        Two tensors [B, T, 1, D / 2], ready to broadcast over heads.
    """
    angles = positions_BT.float()[..., None, None] * rotary_frequencies(config, positions_BT.device)
    cosine, sine = angles.cos(), angles.sin()
    if (gain := rotary_gain(config)) != 1:
        cosine, sine = cosine * gain, sine * gain
    return cosine.to(dtype), sine.to(dtype)


def rotate(x_BTHD: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding of each head's pairs (x[i], x[i + D/2]): halves, not neighbors, as Hugging Face's Llama."""
    cosine, sine = angles
    first, second = x_BTHD.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
