"""Files of Hugging Face models: those in its cache, or downloaded.

What is whole in the cache asks no network. For the rest the hub is asked first: where it cannot be reached,
huggingface_hub alone would repeat every request for minutes.
"""

import threading
from collections.abc import Callable, Sequence
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from secondeye.system.errors import UserError

ANSWER_SECONDS = 3.0  # of the hub, name resolution included; also for a server that never answers
_ASKED = ("endpoint", "revision", "token")  # options that choose what is asked for

IsComplete = Callable[[Path], bool]
"""Returns whether a folder has all files of a model that are needed."""


def find_model(
    model: str,  # Hugging Face id
    patterns: Sequence[str],  # of the names of files to download
    remedy: str,  # what a user may do if they cannot be had, for the error
    *,
    is_complete: IsComplete,
    **options: Any,  # of snapshot_download
) -> Path:
    """Return the folder of a model's files: the one in the cache if it is complete, else downloaded.

    Progress is shown. Raises UserError if the hub does not answer within ANSWER_SECONDS, if it does not have
    the model, and if the download fails.
    """
    if not options.get("force_download") and (folder := find_cached(model, is_complete, **options)):
        return folder
    asked = {name: value for name, value in options.items() if name in _ASKED}
    reason = "only local files are asked for" if options.get("local_files_only") else ""
    if reason := reason or why_unavailable(model, patterns, **asked):
        raise UserError(f"{model}: not on this machine and cannot be downloaded ({reason}); {remedy}")
    try:
        return Path(snapshot_download(model, allow_patterns=list(patterns), **options))
    except (HTTPError, OSError, RuntimeError) as error:  # the last one is of hf_xet, for large files
        reason = _explain(error)
        raise UserError(
            f"{model}: the download failed ({reason}); run the same command again to continue it, or {remedy}"
        ) from error


def find_cached(
    model: str,
    is_complete: IsComplete,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    **others: Any,  # options of a download
) -> Path | None:
    """Return the folder of a model in the cache; None if it is not there or not complete.

    Raises UserError for a text that cannot be the name of a model.
    """
    try:
        validate_repo_id(model)
    except HFValidationError as error:
        raise UserError(
            f"{model}: neither a folder nor a name of Hugging Face, which has the form ORG/NAME"
        ) from error
    # Not by snapshot_download, for which a model without its card is incomplete.
    cached = Path(cache_dir or constants.HF_HUB_CACHE) / repo_folder_name(repo_id=model, repo_type="model")
    wanted = revision or constants.DEFAULT_REVISION
    reference = cached / "refs" / wanted
    folder = cached / "snapshots" / (reference.read_text() if reference.is_file() else wanted)
    return folder if folder.is_dir() and is_complete(folder) else None


def why_unavailable(
    model: str,
    patterns: Sequence[str],  # of the names of files to download
    *,
    endpoint: str | None = None,  # another address than Hugging Face's
    revision: str | None = None,
    token: Any = None,
) -> str:
    """Return why a model cannot be downloaded, or "" if it can; within ANSWER_SECONDS."""
    if constants.is_offline_mode():
        return "offline mode"
    answer: list[str] = []

    def ask() -> None:
        given: dict[str, Any] = {"timeout": 2 * ANSWER_SECONDS, "token": token}  # ends the thread
        try:
            info = HfApi(endpoint).model_info(model, revision=revision, **given)
            names = [file.rfilename for file in info.siblings or []]
            wanted = next(iter(filter_repo_objects(names, allow_patterns=list(patterns))), None)
            if wanted is None:
                answer.append(f"has none of {', '.join(patterns)}")
                return
            # The description of a gated model is public, its files are not.
            get_hf_file_metadata(hf_hub_url(model, wanted, revision=revision, endpoint=endpoint), **given)
            answer.append("")
        except (HTTPError, OSError, JSONDecodeError) as error:
            answer.append(_explain(error))

    # In a thread, since the resolver of the system cannot be given a time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    address = endpoint or constants.ENDPOINT
    host = address.partition("//")[2] or address
    if not answer:
        return f"{host} does not answer"
    return f"{host}: {answer[0]}" if answer[0] else ""


def _explain(error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return "its licence must be accepted there, and an access token given with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "no such model, or a private one"
    if isinstance(error, JSONDecodeError):
        return "the answer is not that of Hugging Face; a network may want you to log in first"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
