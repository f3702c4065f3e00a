"""Modules from folders in diffusers' layout: safetensors that are what config.json says, or one line why not.

The libraries fill what a file lacks with random numbers, leave out what it has besides, and say in many ways,
and in pages of text, that it is not what a config describes.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler
from diffusers.utils import logging
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import CLIPVisionModelWithProjection
from transformers.utils import logging as transformers_logging

from secondeye.inpaint.pipeline import require_scheduler
from secondeye.system.errors import UserError

REASON_LETTERS = 200  # of what a library says is wrong
OLD_BUFFER = "position_ids"  # in files of older versions of transformers; it is no weight


def load_module(
    module_type: Any, folder: Path, dtype: torch.dtype, variant: str | None = None, **options: Any
) -> Any:
    """One of diffusers' modules in eval mode; Refusal where its safetensors do not fit."""
    return _load(module_type, folder, "diffusion_pytorch_model", variant, torch_dtype=dtype, **options)


def load_image_encoder(folder: Path, dtype: torch.dtype, variant: str | None = None) -> Any:
    """CLIP's picture half in eval mode; Refusal where its safetensors do not fit."""
    shapes = {"ignore_mismatched_sizes": True}  # they are in the report, which says which
    return _load(CLIPVisionModelWithProjection, folder, "model", variant, dtype=dtype, **shapes)


def _load(module_type: Any, folder: Path, stem: str, variant: str | None, **options: Any) -> Any:
    variant = _variant_of(folder, stem, variant)
    read_json(folder / "config.json")
    with _fitting(folder):
        module, report = module_type.from_pretrained(
            folder,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    _require_all(folder, report)
    return module.eval()


def load_scheduler(folder: Path) -> EulerDiscreteScheduler:
    """The schedule a model was trained for; Refusal where it is none for this network."""
    path = folder / "scheduler_config.json"
    require_scheduler(read_json(path), str(path))
    with _fitting(folder, path.name):
        return EulerDiscreteScheduler.from_pretrained(folder)


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a file; Refusal where there is none."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; the folder must be a complete model")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); get the file again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a mapping, got {type(content).__name__}; get the file again")
    return content


def require_finite(modules: Mapping[str, torch.nn.Module], source: str | Path) -> None:
    """Refuse weights that are no numbers, as a broken training leaves them."""
    for part, module in modules.items():
        for name, weights in module.named_parameters():
            if not bool(weights.isfinite().all()):
                raise UserError(f"{source}: {name} of {part} holds what is no number; get the weights again")


@contextmanager
def _fitting(folder: Path, config: str = "config.json") -> Iterator[None]:
    """Have a library's own errors be one line, and keep it quiet."""
    level, others = transformers_logging.get_verbosity(), logging.get_verbosity()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except (
        *(OSError, ValueError, RuntimeError, ImportError, TypeError, KeyError),
        *(SafetensorError, StrictDataclassError),
    ) as error:
        reason = " ".join(str(error).split()).partition(". If you want")[0][:REASON_LETTERS]
        raise UserError(_unfit(folder, reason.rstrip("."), config)) from error
    finally:
        transformers_logging.set_verbosity(level)
        logging.set_verbosity(others)


def _unfit(folder: Path, reason: str, config: str = "config.json") -> str:
    what = f"the weights can not be loaded as {config} describes: {reason}"
    return f"{folder}: {what}; get the folder's files again, all from one place"


def _variant_of(folder: Path, stem: str, asked: str | None) -> str | None:
    """What was asked for; else None for plain weights, fp16 where only those are there."""
    if asked is not None:
        if not list(folder.glob(f"{stem}.{asked}*")) and not list(
            folder.glob(f"{stem}.safetensors*.{asked}*")
        ):
            raise UserError(f"{folder}: {stem}.{asked}.safetensors is missing; leave out the variant")
        return asked
    if any((folder / f"{stem}{end}").is_file() for end in (".safetensors", ".safetensors.index.json")):
        return None
    half = (".fp16.safetensors", ".safetensors.index.fp16.json")
    if any((folder / f"{stem}{end}").is_file() for end in half):
        return "fp16"
    if list(folder.glob("*.bin")):
        raise UserError(f"{folder}: holds pickles, which may run code; convert them to {stem}.safetensors")
    raise UserError(f"{folder}: {stem}.safetensors is missing; the folder must be a complete model")


def _require_all(folder: Path, report: Mapping[str, Any]) -> None:
    """Refuse weights that are too few, too many, or of another shape."""
    unexpected = [name for name in report["unexpected_keys"] if not name.endswith(OLD_BUFFER)]
    mismatched = [f"{name} {list(has)} for {list(wants)}" for name, has, wants in report["mismatched_keys"]]
    for names, what in (
        (report["missing_keys"], "missing"),
        (unexpected, "not in it"),
        (mismatched, "of another shape"),
    ):
        if names:
            first, more = min(names), f" and {len(names) - 1} more" * (len(names) > 1)
            raise UserError(_unfit(folder, f"{what}: {first}{more}"))
