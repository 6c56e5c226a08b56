"""Training loop of a decoder in plain PyTorch: python examples/train_a_decoder_in_40_lines.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from models import Decoder, DecoderConfig
from models.inference.generation import generate
from models.inference.sampling import Sampling
from models.initialization import build_decoder

TEXT = torch.tensor(list(b"the quick brown fox jumps over the lazy dog. " * 40))


def train(steps: int = 150, batch: int = 4, window: int = 48) -> tuple[Decoder, list[float]]:
    """A decoder of 60 thousand parameters that learns the bytes of a sentence by heart, and its losses."""
    config = DecoderConfig(vocabulary_size=256, width=64, layers=1, heads=4, key_value_heads=2, feed_forward_width=128)
    decoder, losses = build_decoder(config), []
    optimizer, generator = torch.optim.AdamW(decoder.parameters(), lr=1e-2), torch.Generator().manual_seed(0)
    for step in range(steps):
        starts = torch.randint(len(TEXT) - window - 1, (batch,), generator=generator).tolist()
        windows = torch.stack([TEXT[start : start + window + 1] for start in starts])
        logits = decoder.output(decoder(windows[:, :-1]))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:3}  loss {losses[-1]:.3f}")
    return decoder, losses


if __name__ == "__main__":
    prompt, greedy = "the quick ", Sampling(temperature=0)
    (written,) = generate(train()[0], [list(prompt.encode())], max_new_tokens=40, sampling=greedy)
    print(prompt + bytes(written.tokens).decode(errors="replace"))
