"""`convert`: a finished model as one file of this project or as a Hugging Face folder.

It needs no configuration: a model brings its shape and its tokenizer.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from common.errors import InputError
from common.run_folder import require_stored_model


def convert(
    input: str,
    output: str,
    dtype: Literal["keep", "float32", "bfloat16"] = "keep",
    positions: int | None = None,
    shard_gigabytes: float = 5.0,
) -> None:
    """Convert a model, adapters merged, tokenizer and chat template with it.

    Args:
        input: a run's folder, a checkpoint of any layout, a file that this command wrote, or a Hugging Face folder.
        output: NAME.safetensors for one file of this project, with the tokenizer in files beside it; any other name
            is a folder that transformers, vLLM and their like open.
        dtype: of the tensors written.
        positions: longest text the model is meant for, which Hugging Face wants to know; by default what the input
            says, 2048 where it does not.
        shard_gigabytes: of each file in a Hugging Face folder.
    """
    if (positions is not None and positions < 1) or not shard_gigabytes > 0:
        raise InputError(f"positions={positions}, shard_gigabytes={shard_gigabytes}: must be above 0")
    require_stored_model(Path(input), "--input")

    import torch

    from datamodules.conversations.template_environment import read_template
    from datamodules.tokenization.files import TEMPLATE, find_tokenizer, load_tokenizer, own_template
    from datamodules.tokenization.tokenizer_json import write_hugging_face_tokenizer
    from models.decoder import Decoder
    from models.weights.hugging_face_folder import write_hugging_face_folder
    from models.weights.hugging_face_names import to_hugging_face
    from models.weights.source import WeightSource

    target, stored = Path(output), WeightSource(Path(input), "--input")
    if target.exists() and target.samefile(input):
        raise InputError(f"output={output}: it is the input, name another")
    config = stored.whole_config()
    with torch.device("meta"):
        sizes = [(name, parameter.shape) for name, parameter in Decoder(config).named_parameters()]
    for name, shape in sizes:
        if (found := stored.merged(name).shape) != shape:
            raise InputError(
                f"input={input} holds {name} with shape {tuple(found)}, its configuration says {tuple(shape)}: no "
                "whole model"
            )
    kept = stored.merged("norm.weight").dtype
    chosen = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(dtype, kept)
    file = find_tokenizer(stored.path)
    tokenizer, named = load_tokenizer(file), own_template(file)
    template = read_template(named) if named is not None else None
    if target.suffix == ".safetensors":
        from models.weights.single_file import write_safetensors

        tensors = {f"decoder.{name}": stored.merged(name).to(chosen).contiguous() for name, _ in sizes}
        write_safetensors(tensors, asdict(config), target)
        beside = target.with_suffix(".tokenizer")
        beside.mkdir(exist_ok=True)
        tokenizer.write(beside)
        if template is not None:
            (beside / TEMPLATE).write_text(template, encoding="utf-8")
    else:
        special = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos}
        # A padding token's embedding is never trained there: not one that is also trained as the end.
        special["pad_token_id"] = tokenizer.pad if tokenizer.pad != tokenizer.eos else None
        longest = positions or stored.positions or 2048
        described = to_hugging_face(config, longest, str(chosen).removeprefix("torch."), special)
        write_hugging_face_folder(target, config, described, sizes, stored.merged, chosen, int(shard_gigabytes * 1e9))
        write_hugging_face_tokenizer(tokenizer, template, target)
    print(f"converted: {target} ({sum(shape.numel() for _, shape in sizes) / 1e6:.1f} M parameters, {chosen})")
