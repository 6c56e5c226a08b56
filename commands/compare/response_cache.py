"""Response cache of a comparison, kept until all models have responded: a stopped one continues with the next model.

A file a model, named by a fingerprint of all that its content is a function of, so that nothing has to be refused; with
the result there, all of them go, because no fingerprint knows of edited source.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignment.constitutional.record_log import write_if_changed
from alignment.rewards.base import Response
from common.fingerprint import fingerprint
from datamodules.conversations.rows import Row
from datamodules.tokenization.base import Tokenizer

Made = tuple[list[Response], tuple[Tensor, Tensor]]
"""Responses of a model, and both estimates of their KL divergence, see
`alignment.comparison.side_by_side.kl_estimates`."""


class ComparedResponses:
    """Responses by model in a folder.

    Args:
        folder: made where it is not there.
        prompts: one per response: token ids and the row they come from.
        tokenizer: decodes responses.
    """

    def __init__(self, folder: Path, prompts: Sequence[tuple[list[int], Row]], tokenizer: Tokenizer) -> None:
        self.folder, self.prompts, self.tokenizer = folder, prompts, tokenizer
        self._prompts = fingerprint([ids for ids, _ in prompts])

    def get(self, identity: Any, make: Callable[[], Made]) -> Made:
        """What was made of this identity before, or is made now.

        Args:
            identity: all that responses to these prompts are a function of, JSON-able.
            make: responses and kl.
        """
        path = self.folder / f"{fingerprint(identity, self._prompts)}.json"
        if path.exists():
            return self._read(json.loads(path.read_text(encoding="utf-8")))
        responses, kl = make()
        kept = {
            "tokens": [list(one.tokens) for one in responses],
            "finish": [one.finish for one in responses],
            "kl": [values.tolist() for values in kl],
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_if_changed(path, [json.dumps(kept).encode()])
        return responses, kl

    def forget(self) -> None:
        """Remove the folder, once all is in the result."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, kept: dict[str, Any]) -> Made:
        each = zip(self.prompts, kept["tokens"], kept["finish"], strict=True)
        responses = [
            Response(prompt, tokens, self.tokenizer.decode_continuation(tokens), finish, row)
            for (prompt, row), tokens, finish in each
        ]
        exact, sampled = (torch.tensor(values, dtype=torch.float64) for values in kept["kl"])
        return responses, (exact, sampled)
