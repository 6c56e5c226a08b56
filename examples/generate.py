"""Generation with the newest checkpoint of a run from Python: python examples/generate.py RUN PROMPT."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from datamodules.tokenization.files import find_tokenizer, load_tokenizer
from models.decoder import Decoder
from models.inference.generation import generate
from models.inference.sampling import Sampling
from models.initialization import materialize
from models.weights.source import WeightSource


def write(run: str, prompt: str, max_new_tokens: int = 64) -> str:
    """The prompt and what the model writes after it.

    Args:
        run: a run folder, a checkpoint, a converted file or a Hugging Face folder.
        prompt: text.
        max_new_tokens: largest number of tokens to write.
    """
    stored = WeightSource(Path(run))
    tokenizer = load_tokenizer(find_tokenizer(stored.path))
    with torch.device("meta"):
        decoder = Decoder(stored.whole_config())
    materialize(decoder, torch.device("cpu"), seed=0, stored=stored.merged)
    tokens = [tokenizer.before_text, *tokenizer.encode(prompt)]
    sampling = Sampling(temperature=0.8, top_p=0.95)
    (written,) = generate(decoder, [tokens], max_new_tokens=max_new_tokens, sampling=sampling, stop=[tokenizer.eos])
    return prompt + tokenizer.decode(written.tokens)


if __name__ == "__main__":
    print(write(*(sys.argv[1:3] if len(sys.argv) > 2 else ("runs/quickstart", "def main("))))
