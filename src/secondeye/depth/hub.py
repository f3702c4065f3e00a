"""Folders of Hugging Face models: found in the local cache, or downloaded; their licence and their hash.

Only safetensors and JSON are downloaded, and the model card; no code of a model's repository.
"""

import hashlib
import json
import re
import threading
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, HTTPError

from secondeye.system.errors import UserError
from secondeye.system.files import hash_file

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS, INDEX, CARD = "model.safetensors", "model.safetensors.index.json", "README.md"
PATTERNS = (CONFIG, PREPROCESSOR, WEIGHTS, INDEX, "model-*.safetensors", CARD)
NOT_STATED = "not stated"
ANSWER_SECONDS = 3.0  # of the hub, name resolution included; also for a server that never answers

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
_LICENCE = r"^{}:[ \t]*(?:\n[ \t]*-[ \t]*)?['\"]?([^'\"\n\[\]]+)"


def find_folder(model: str) -> Path:  # folder, or Hugging Face id
    """Return the folder of a model's files; download them if they are not here. UserError if that fails."""
    folder = cached_folder(model) or _download(model)
    if missing := missing_files(folder):
        raise UserError(_explain_missing(folder, missing))
    return folder


def cached_folder(model: str) -> Path | None:
    """Return the folder of a model that is on this machine; None if it would have to be downloaded.

    Raises UserError for a folder that is not a complete model, and for something that is no name.
    """
    folder = Path(model)
    if folder.is_dir():
        if missing := missing_files(folder):
            raise UserError(_explain_missing(folder, missing))
        return folder
    try:
        config = try_to_load_from_cache(model, CONFIG)
    except HFValidationError as error:
        raise UserError(
            f"hf:{model}: neither a folder nor the name of a model; Hugging Face has names like "
            "depth-anything/Depth-Anything-V2-Small-hf"
        ) from error
    if not isinstance(config, str) or missing_files(Path(config).parent):
        return None
    return Path(config).parent


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
        return sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{index}: cannot be read ({error!r}); get the file again") from error


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


def why_unavailable(model: str) -> str:
    """Return why a model cannot be downloaded, or "" if it can; within ANSWER_SECONDS."""
    if constants.is_offline_mode():
        return "offline mode"
    answer: list[str] = []

    def ask() -> None:
        try:
            HfApi().model_info(model, timeout=ANSWER_SECONDS)
            answer.append("")
        except (HTTPError, OSError, HFValidationError) as error:
            answer.append((str(error).strip().splitlines() or [type(error).__name__])[0])

    # In a thread, since the resolver of the system cannot be given a time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    host = constants.ENDPOINT.partition("//")[2] or constants.ENDPOINT
    if not answer:
        return f"{host} does not answer"
    return f"{host}: {answer[0]}" if answer[0] else ""


def _download(model: str) -> Path:
    if reason := why_unavailable(model):
        raise UserError(
            f"hf:{model}: not on this machine and cannot be downloaded ({reason}); connect to the internet, "
            f"log in if the model is gated, and run `hf download {model}`, or use --depth motion, which "
            "needs no weights"
        )
    try:
        return Path(snapshot_download(model, allow_patterns=list(PATTERNS)))
    except (HTTPError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"hf:{model}: the download failed ({reason}); run the same command again to continue it"
        ) from error


def _explain_missing(folder: Path, missing: list[str]) -> str:
    if missing == [WEIGHTS] and any(folder.glob("*.bin")):
        return f"{folder}: pickled weights may run code and are not read; convert them to {WEIGHTS}"
    return f"{folder}: missing {', '.join(missing)}; the folder must be a complete model with {WEIGHTS}"
