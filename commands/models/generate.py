"""`generate`: text of a trained model. It needs no configuration: a model brings its shape and its tokenizer."""

from pathlib import Path

from common.errors import InputError
from common.run_folder import require_stored_model


def generate(
    input: str,
    prompt: str = "",
    max_new_tokens: int = 128,
    samples: int = 1,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 0.95,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    cuda_graphs: bool = False,
) -> None:
    """Write text that continues a prompt.

    Args:
        input: a run's folder, a checkpoint, a file that `convert` wrote, or a Hugging Face folder.
        prompt: text to continue.
        max_new_tokens: most tokens to add.
        samples: responses to print.
        temperature: of the sampling; 0 takes the most likely token.
        top_k: number of most likely tokens to sample from; 0 is all.
        top_p: share of the probability to sample from.
        min_p: least probability of a token to sample, relative to the most likely one.
        repetition_penalty: above 1 makes tokens that occurred less likely.
        seed: of the sampling.
        cuda_graphs: replay recorded steps, faster for many tokens on a GPU.
    """
    if samples < 1:
        raise InputError(f"samples={samples}: must be at least 1")
    if any("\ud800" <= letter <= "\udfff" for letter in prompt):
        raise InputError("prompt holds bytes that are no UTF-8: correct it")
    require_stored_model(Path(input), "--input")

    from datamodules.tokenization.files import find_tokenizer, load_tokenizer
    from models.inference.generation import generate as generate_responses
    from models.inference.sampling import Sampling
    from models.weights.load import load_decoder
    from models.weights.source import WeightSource

    stored = WeightSource(Path(input), "--input")
    if stored.config.get("scalar_output"):
        raise InputError(f"input={input}: this is a reward model, which scores text and writes none")
    tokenizer = load_tokenizer(find_tokenizer(stored.path))
    decoder = load_decoder(stored)
    prompt_ids = [*tokenizer.beginning, *tokenizer.encode(prompt)] or [tokenizer.before_text]
    responses = generate_responses(
        decoder,
        [prompt_ids] * samples,
        max_new_tokens=max_new_tokens,
        sampling=Sampling(repetition_penalty, temperature, top_k, top_p, min_p, seed),
        stop=[tokenizer.eos],
        cuda_graphs=cuda_graphs,
    )
    for number, response in enumerate(responses, start=1):
        print(f"--- {number} ---\n" * (samples > 1) + tokenizer.decode([*prompt_ids, *response.tokens]))
