"""Load single modules from folders in diffusers' layout, or raise a one-line UserError.

diffusers and transformers initialise missing weights at random, ignore unexpected ones, and report other
misfits in many kinds of exceptions with pages of text.
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

from secondeye.inpaint.module_checks import require_scheduler
from secondeye.system.errors import UserError

MAX_REASON_LENGTH = 200  # of a library's message that is quoted
OLD_BUFFER = "position_ids"  # written by older versions of transformers; not a weight


def load_module(
    module_type: Any, folder: Path, dtype: torch.dtype, variant: str | None = None, **options: Any
) -> Any:
    """Load one of diffusers' modules in eval mode; UserError if its safetensors do not fit its config."""
    return _load(module_type, folder, "diffusion_pytorch_model", variant, torch_dtype=dtype, **options)


def load_image_encoder(folder: Path, dtype: torch.dtype, variant: str | None = None) -> Any:
    """Load CLIP's image encoder in eval mode; UserError if its safetensors do not fit its config."""
    # Mismatched sizes are then listed in the report, by name.
    return _load(
        CLIPVisionModelWithProjection, folder, "model", variant, dtype=dtype, ignore_mismatched_sizes=True
    )


def _load(module_type: Any, folder: Path, stem: str, variant: str | None, **options: Any) -> Any:
    variant = _choose_variant(folder, stem, variant)
    read_json(folder / "config.json")
    with _one_line_errors(folder):
        module, report = module_type.from_pretrained(
            folder,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    _require_exact_weights(folder, report)
    return module.eval()


def load_scheduler(folder: Path) -> EulerDiscreteScheduler:
    """Load the noise scheduler; UserError if it is not the one these networks are trained for."""
    path = folder / "scheduler_config.json"
    require_scheduler(read_json(path), str(path))
    with _one_line_errors(folder, path.name):
        return EulerDiscreteScheduler.from_pretrained(folder)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file; UserError if it is missing or something else."""
    if not path.is_file():
        raise UserError(f"{path}: file not found; the folder must be a complete model")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); get the file again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a JSON object, got {type(content).__name__}; get the file again")
    return content


def require_finite(components: Mapping[str, Any], source: str | Path) -> None:
    """Raise UserError if a module's weights have NaN or inf, as a diverged training leaves them."""
    for part, module in components.items():
        if not isinstance(module, torch.nn.Module):
            continue
        for name, weights in module.named_parameters():
            if not bool(weights.isfinite().all()):
                raise UserError(f"{source}: {name} of {part} has NaN or inf; get the weights again")


@contextmanager
def _one_line_errors(folder: Path, config: str = "config.json") -> Iterator[None]:
    """Turn a library's errors into a one-line UserError and silence its log and progress bars."""
    transformers_level, diffusers_level = transformers_logging.get_verbosity(), logging.get_verbosity()
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
        reason = " ".join(str(error).split()).partition(". If you want")[0][:MAX_REASON_LENGTH]
        raise _misfit(folder, reason.rstrip("."), config) from error
    finally:
        transformers_logging.set_verbosity(transformers_level)
        logging.set_verbosity(diffusers_level)


def _misfit(folder: Path, reason: str, config: str = "config.json") -> UserError:
    return UserError(
        f"{folder}: the weights do not fit {config}: {reason}; "
        "get all files of the folder again, from one place"
    )


def _choose_variant(folder: Path, stem: str, requested: str | None) -> str | None:
    """Return the requested variant; by default None for plain weights, fp16 if there are no others."""
    if requested is not None:
        patterns = (f"{stem}.{requested}*", f"{stem}.safetensors*.{requested}*")
        if not any(list(folder.glob(pattern)) for pattern in patterns):
            raise UserError(f"{folder}: {stem}.{requested}.safetensors is missing; leave out the variant")
        return requested
    if any((folder / f"{stem}{end}").is_file() for end in (".safetensors", ".safetensors.index.json")):
        return None
    half = (".fp16.safetensors", ".safetensors.index.fp16.json")
    if any((folder / f"{stem}{end}").is_file() for end in half):
        return "fp16"
    if list(folder.glob("*.bin")):
        raise UserError(f"{folder}: pickles may run code; convert them to {stem}.safetensors")
    raise UserError(f"{folder}: {stem}.safetensors is missing; the folder must be a complete model")


def _require_exact_weights(folder: Path, report: Mapping[str, Any]) -> None:
    """Raise UserError for missing weights, unexpected ones and wrong shapes."""
    unexpected = [name for name in report["unexpected_keys"] if not name.endswith(OLD_BUFFER)]
    mismatched = [
        f"{name} {list(actual)}, expected {list(wanted)}"
        for name, actual, wanted in report["mismatched_keys"]
    ]
    for names, what in (
        (report["missing_keys"], "missing"),
        (unexpected, "unexpected"),
        (mismatched, "wrong shape"),
    ):
        if names:
            more = f" and {len(names) - 1} more" * (len(names) > 1)
            raise _misfit(folder, f"{what}: {min(names)}{more}")
