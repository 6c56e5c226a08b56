"""Export of a tokenizer as `tokenizer.json`, with the settings and the chat template beside it.

The `tokenizers` library and everything built on it read these files. A SentencePiece model becomes a list of all its
merges in the format of that library, which is larger and needs no conversion.
"""

import json
from pathlib import Path
from typing import Any

from datamodules.tokenization.base import ESCAPE, ESCAPED_MARK, SPACE_MARK, TOKENIZER, Tokenizer
from datamodules.tokenization.files import TEMPLATE
from datamodules.tokenization.hugging_face import JSON, SETTINGS, settings_of
from datamodules.tokenization.sentencepiece import SentencePieceTokenizer


def write_hugging_face_tokenizer(tokenizer: Tokenizer, template: str | None, folder: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and the chat template, from any tokenizer."""
    for name in (TOKENIZER, TEMPLATE):
        (folder / name).unlink(missing_ok=True)  # of a model that was here before
    tokenizer.write(folder)
    if isinstance(tokenizer, SentencePieceTokenizer):
        described = json.dumps(tokenizer_json(tokenizer), ensure_ascii=False)
        (folder / JSON).write_text(described, encoding="utf-8")
        names = {number: name for name, number in tokenizer.control_ids().items()}
        special = {f"{key}_token": names[getattr(tokenizer, key)] for key in ("bos", "eos", "pad")}
        (folder / SETTINGS).write_text(json.dumps(settings_of(special), indent=2) + "\n", encoding="utf-8")
    if template is not None:
        (folder / TEMPLATE).write_text(template, encoding="utf-8")


def tokenizer_json(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    """A SentencePiece model of this project as `tokenizer.json`: the same ids for any text that spells no control
    token, which the ecosystem takes for the control token.

    A piece's merges are all its cuts into two pieces; what SentencePiece decides by score, rank decides there.
    """
    pieces = tokenizer.pieces()
    control, ids = tokenizer.control_ids(), {piece: number for number, piece in enumerate(pieces)}
    special = set(control) | {pieces[0]}
    merges: list[list[str]] = []
    for piece in pieces:
        if piece in special or (len(piece) == 6 and piece.startswith("<0x")):
            continue
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids and left not in special and right not in special:
                merges.append([left, right])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": ids[name], "content": name, **flags} for name in sorted(special, key=ids.__getitem__)]
    begin = next(name for name, number in control.items() if number == tokenizer.bos)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                _replace(ESCAPE, ESCAPE * 2),
                _replace(SPACE_MARK, ESCAPE + ESCAPED_MARK),
                _replace(" ", SPACE_MARK),
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": begin, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"SpecialToken": {"id": begin, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {begin: {"id": begin, "ids": [tokenizer.bos], "tokens": [begin]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                _replace(SPACE_MARK, " "),
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                # Backward: U+FDD0 is no character and takes the place of the doubled escape while the other is undone.
                _replace(ESCAPE * 2, "\ufdd0"),
                _replace(ESCAPE + ESCAPED_MARK, SPACE_MARK),
                _replace("\ufdd0", ESCAPE),
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": pieces[0],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": ids,
            "merges": merges,
        },
    }


def _replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}
