"""A trained Deep3D: its weight files, and how it makes a right view.

The folder has config.json (size and shifts of the network) and model.safetensors.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from secondeye.deep3d.network import Deep3D
from secondeye.deep3d.selection import Shifts, select
from secondeye.imaging.arrays import resize
from secondeye.system.errors import UserError

KIND = "secondeye deep3d 1"  # in config.json; changes when older weights no longer fit
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_deep3d(model: Deep3D, folder: Path) -> None:
    """Write config.json and model.safetensors. Raises UserError if they cannot be written."""
    config = {"kind": KIND, "height": model.height, "width": model.width, "shifts": asdict(model.shifts)}
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(weights, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: the weights cannot be written ({error}); free some disk space") from error


def is_trained(folder: Path) -> bool:
    """Return whether a folder has a trained Deep3D."""
    return (folder / WEIGHTS).is_file()


def load_deep3d(folder: Path, device: str) -> Deep3D:
    """Load a trained network in eval mode. Raises UserError if files are missing or do not fit."""
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: missing {', '.join(missing)}; run dvc repro train_deep3d")
    try:
        config = dict(json.loads((folder / CONFIG).read_text()))
        if config.get("kind") != KIND:
            raise UserError(
                f"{folder}/{CONFIG}: kind is {config.get('kind')!r}, not {KIND!r}; run dvc repro train_deep3d"
            )
        model = Deep3D(int(config["height"]), int(config["width"]), Shifts(**config["shifts"]))
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{folder}/{CONFIG}: damaged ({reason}); run dvc repro train_deep3d") from error
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{folder}/{WEIGHTS}: does not fit {CONFIG}; run dvc repro train_deep3d") from error
    return model.to(device).eval()


@torch.inference_mode()
def make_right_view(
    model: Deep3D,  # in eval mode, on any device
    left: Tensor,  # [T, 3, H, W] in [0, 1]
) -> Tensor:  # [T, 3, H, W], on the CPU
    """Make the right view of each frame alone, at its own size: shifts keep their share of the width."""
    shifts_px = [shift * left.shape[-1] / model.width for shift in model.shifts.px]
    device = next(model.parameters()).device
    right = []
    for frame in left.to(device).split(1):
        right.append(select(frame, model(resize(frame, model.height, model.width)), shifts_px))
    return torch.cat(right).clamp(0, 1).cpu()
