"""`convert`: a finished model as one file of this project, as a GGUF file or as a Hugging Face folder.

It needs no configuration: a model brings its shape and its tokenizer.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from commands.mistakes import require_at_least
from common.errors import InputError
from common.files import refuse_failed_save
from common.stored_models.names import require_stored_model


def convert(
    input: str,
    output: str,
    dtype: Literal["keep", "float32", "bfloat16", "float16", "q8_0"] = "keep",
    positions: int | None = None,
    shard_gigabytes: float = 5.0,
) -> None:
    """Convert a model, adapters merged, tokenizer and chat template with it.

    Args:
        input: a run's folder, a checkpoint of any layout, a file that this command wrote, a Hugging Face folder, a GGUF
            file, or a name such as smollm2-135m-instruct or owner/name of the hub.
        output: NAME.safetensors for one file of this project, with the tokenizer in files beside it; NAME.gguf for
            llama.cpp and its like; any other name is a folder that transformers, vLLM and their like open.
        dtype: data type of the tensors written; float16 and q8_0 (8 bits, in blocks of 32) are for the matrices of a
            GGUF file.
        positions: longest text the model is meant for, which Hugging Face wants to know; by default what the input
            says, 2048 where it does not.
        shard_gigabytes: size of each file in a Hugging Face folder.
    """
    require_at_least(positions=(positions, 1))
    if not shard_gigabytes > 0:
        raise InputError(f"shard_gigabytes={shard_gigabytes}: must be above 0")
    if dtype in ("float16", "q8_0") and not output.endswith(".gguf"):
        raise InputError(f"dtype={dtype}: of GGUF files alone, output={output} takes float32 or bfloat16")
    require_stored_model(input, "--input")

    import torch

    from datamodules.conversations.template_environment import read_template
    from datamodules.tokenization.files import TEMPLATE, TOKENIZER, find_tokenizer, load_tokenizer, own_template
    from datamodules.tokenization.gguf_export import gguf_tokenizer_keys
    from datamodules.tokenization.tokenizer_json import write_hugging_face_tokenizer
    from models.decoder import Decoder
    from models.weights.gguf_file import Quantization, write_gguf
    from models.weights.hugging_face_folder import write_hugging_face_folder
    from models.weights.hugging_face_names import to_hugging_face
    from models.weights.source import WeightSource

    target, stored = Path(output), WeightSource(Path(input), "--input")
    if target.exists() and target.samefile(stored.path):
        raise InputError(f"output={output}: it is the input, name another")
    config = stored.whole_config()
    with torch.device("meta"):
        sizes = [(name, parameter.shape) for name, parameter in Decoder(config).named_parameters()]
    for name, shape in sizes:
        if (found := stored.merged(name).shape) != shape:
            raise InputError(
                f"input={input} holds {name} with shape {tuple(found)}, its configuration says {tuple(shape)}: it is "
                "not a whole model"
            )
    kept = stored.merged("norm.weight").dtype
    chosen = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(dtype, kept)
    file = find_tokenizer(stored.path)
    tokenizer, named = load_tokenizer(file), own_template(file)
    template = read_template(named) if named is not None else None
    longest = positions or stored.positions or 2048
    if target.suffix == ".gguf":
        of_dtype: dict[Any, Quantization] = {torch.bfloat16: "bf16", torch.float16: "f16"}
        kind: Quantization = "f16" if dtype == "float16" else "q8_0" if dtype == "q8_0" else of_dtype.get(chosen, "f32")
        keys = gguf_tokenizer_keys(tokenizer, template, config.vocabulary_size)
        write_gguf(target, config, longest, sizes, stored.merged, kind, keys)
    elif target.suffix == ".safetensors":
        from models.weights.single_file import write_safetensors

        tensors = {f"decoder.{name}": stored.merged(name).to(chosen).contiguous() for name, _ in sizes}
        write_safetensors(tensors, asdict(config), target)
        beside = target.with_suffix(".tokenizer")
        with refuse_failed_save(beside):
            beside.mkdir(exist_ok=True)
            tokenizer.write(beside)
            if template is not None:
                (beside / TEMPLATE).write_text(template, encoding="utf-8")
    else:
        special = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos}
        # A padding token's embedding is never trained there: not one that is also trained as the end.
        special["pad_token_id"] = tokenizer.pad if tokenizer.pad != tokenizer.eos else None
        described = to_hugging_face(config, longest, str(chosen).removeprefix("torch."), special)
        write_hugging_face_folder(
            *(target, config, described, sizes, stored.merged, chosen, int(shard_gigabytes * 1e9), tokenizer.stops),
            write_more=lambda folder: write_hugging_face_tokenizer(tokenizer, template, folder),
            stale=(TOKENIZER, TEMPLATE),
        )
    stored_as = kind if target.suffix == ".gguf" else chosen
    print(f"converted: {target} ({sum(shape.numel() for _, shape in sizes) / 1e6:.1f} M parameters, {stored_as})")
