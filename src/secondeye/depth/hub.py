"""Hugging Face depth models: the folder of their files, downloaded if necessary, their licence and hash.

Only safetensors and JSON are downloaded, and the model card; no code of a model's repository.
"""

import hashlib
import json
import re
from pathlib import Path

from secondeye.system.errors import UserError
from secondeye.system.files import hash_file
from secondeye.system.hub import find_cached, find_model

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS, INDEX, CARD = "model.safetensors", "model.safetensors.index.json", "README.md"
PATTERNS = (CONFIG, PREPROCESSOR, WEIGHTS, INDEX, "model-*.safetensors", CARD)
NOT_STATED = "not stated"

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
_LICENCE = r"^{}:[ \t]*(?:\n[ \t]*-[ \t]*)?['\"]?([^'\"\n\[\]]+)"


def find_folder(model: str) -> Path:  # folder, or Hugging Face id
    """Return the folder of a model's files; download them if they are not here. UserError if that fails."""
    if Path(model).is_dir():
        folder = Path(model)
    elif Path(model).exists():
        raise UserError(f"{model}: is a file; name the folder of a complete model, as --depth hf:FOLDER")
    else:
        remedy = (
            f"connect to the internet, log in if the model is gated, and run `hf download {model}`, or name "
            "its folder, as --depth hf:FOLDER, or use --depth motion, which needs no weights"
        )
        folder = find_model(model, PATTERNS, remedy, is_complete=_is_complete)
    if missing := missing_files(folder):
        raise UserError(_explain_missing(folder, missing))
    return folder


def is_cached(model: str) -> bool:  # Hugging Face id
    """Return whether a model is on this machine, without asking a network."""
    return find_cached(model, _is_complete) is not None


def _is_complete(folder: Path) -> bool:
    return not missing_files(folder)


def missing_files(folder: Path) -> list[str]:
    """Return the names of files that a model needs and the folder does not have."""
    needed = [CONFIG, PREPROCESSOR, *weight_files(folder)]
    return [name for name in needed if not (folder / name).is_file()]


def weight_files(folder: Path) -> list[str]:
    """Return the names of a model's weight files: one, or those that its index lists."""
    index = folder / INDEX
    if not index.is_file():
        return [WEIGHTS]
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{index}: cannot be read ({error!r}); get the file again") from error
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{index}: weight_map must name files; get the file again")
    return sorted(names)


def hash_model(folder: Path) -> str:
    """Return the SHA-256 of all that results depend on: weights and configuration."""
    digest = hashlib.sha256()
    for name in (CONFIG, PREPROCESSOR, *weight_files(folder)):
        digest.update(f"{name}\0{hash_file(folder / name)}".encode())
    return digest.hexdigest()


def read_licence(folder: Path) -> str:
    """Return the licence in the metadata of the model card: its name if it is `other`, or NOT_STATED."""
    path = folder / CARD
    found = _FRONT_MATTER.match(path.read_text(errors="replace")) if path.is_file() else None
    for key in ("license_name", "license"):
        if found and (stated := re.search(_LICENCE.format(key), found[1], re.MULTILINE)):
            return stated[1].strip()
    return NOT_STATED


def _explain_missing(folder: Path, missing: list[str]) -> str:
    if missing == [WEIGHTS] and any(folder.glob("*.bin")):
        return f"{folder}: pickled weights may run code and are not read; convert them to {WEIGHTS}"
    return f"{folder}: missing {', '.join(missing)}; the folder must be a complete model with {WEIGHTS}"
