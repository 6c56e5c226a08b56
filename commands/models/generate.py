"""`generate`: text of a trained model. It needs no configuration: a model brings its shape and its tokenizer."""

from common.errors import InputError
from common.stored_models.names import require_stored_model


def generate(
    input: str,
    prompt: str = "",
    chat: bool = False,
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
    """Write text that continues a prompt, up to where the model's chat template ends a turn.

    Args:
        input: a run's folder, a checkpoint, a file that `convert` wrote, a Hugging Face folder, a GGUF file, or a name:
            smollm2-135m-instruct, or owner/name of the hub.
        prompt: text to continue.
        chat: the prompt is a message, which the model responds to in its chat template; the response alone is written.
        max_new_tokens: most tokens to add.
        samples: responses to print.
        temperature: temperature of sampling; 0 takes the most likely token.
        top_k: number of most likely tokens to sample from; 0 is all.
        top_p: share of the probability to sample from.
        min_p: least probability of a token to sample, relative to the most likely one.
        repetition_penalty: above 1 makes tokens that occurred less likely.
        seed: seed of sampling.
        cuda_graphs: replay recorded steps, faster for many tokens on a GPU.
    """
    if samples < 1:
        raise InputError(f"samples={samples}: must be at least 1")
    if any("\ud800" <= letter <= "\udfff" for letter in prompt):
        raise InputError("prompt is not valid UTF-8: correct it")
    require_stored_model(input, "--input")

    from commands.models.chat_model import ChatModel
    from models.inference.generation import generate as generate_responses
    from models.inference.sampling import Sampling

    sampling = Sampling(repetition_penalty, temperature, top_k, top_p, min_p, seed)
    model = ChatModel(input)
    if chat:
        prompt_ids = model.require_template(input).encode_prompt([{"role": "user", "content": prompt}])
    else:
        prompt_ids = model.prompt_ids(prompt)
    responses = generate_responses(
        model.decoder,
        [prompt_ids] * samples,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        stop=model.stop,
        cuda_graphs=cuda_graphs,
    )
    for number, response in enumerate(responses, start=1):
        text = model.text_of(response) if chat else model.tokenizer.decode([*prompt_ids, *response.tokens])
        print(f"--- {number} ---\n" * (samples > 1) + text)
