"""Turn frames into the input of a depth network, as its preprocessor_config.json says.

The same sizes, padding and normalisation as the processors of transformers, which would need torchvision or
Pillow and 8-bit images.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from secondeye.system.errors import UserError

IMAGENET_STANDARD = (0.5, 0.5, 0.5)
MAX_SIDE_PX = 8192  # of a network's input
UNSIZED_PX = 640  # longer side for networks whose processor keeps the size: they were trained at about this
_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_TYPES = {  # processor of each model type, for configurations that do not name it
    "depth_anything": "DPT",
    "dpt": "DPT",
    "zoedepth": "ZoeDepth",
    "glpn": "GLPN",
    "depth_pro": "DepthPro",
    "tipsv2_dpt": "Tipsv2Dpt",
}
_DEFAULTS: dict[str, dict[str, Any]] = {  # of the processors, for what a configuration leaves out
    "DPT": {"size": 384, "resample": 3, "keep_aspect_ratio": False, "ensure_multiple_of": 1},
    "ZoeDepth": {
        "size": {"height": 384, "width": 512},
        "resample": 2,
        "keep_aspect_ratio": True,
        "ensure_multiple_of": 32,
        "do_pad": True,
    },
    "GLPN": {"size": None, "resample": 2, "do_normalize": False, "size_divisor": 32},
    "DepthPro": {"size": 1536, "resample": 2},
    "Tipsv2Dpt": {"size": 448, "resample": 2, "do_normalize": False},
}


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its frames. Raises ValueError for values out of range."""

    size: tuple[int, int] | None  # px, height and width to fit; None: of the frame, at most UNSIZED_PX
    keep_aspect: bool  # fit the side whose scale is closer to 1; the other follows from the frame's aspect
    multiple: int  # px: both sides are rounded to multiples of it
    rounds_down: bool  # else to the nearest multiple
    mode: str  # bilinear or bicubic
    antialias: bool
    align_corners: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reflect: bool  # pad by ZoeDepth's margin, which the map loses again
    divisor: int  # pad with the mean colour to multiples of it; 1: do not

    def __post_init__(self) -> None:
        for name, sides in (("size", self.size or (1,)), ("multiple", (self.multiple, self.divisor))):
            if not all(1 <= side <= MAX_SIDE_PX for side in sides):
                raise ValueError(f"{name} must be 1 to {MAX_SIDE_PX} px, got {sides}")
        for name, values in (("image_mean", self.mean), ("image_std", self.std)):
            if len(values) != 3 or not all(type(value) in (int, float) for value in values):
                raise ValueError(f"{name} must be three numbers, got {values}")
        if min(self.std) <= 0:
            raise ValueError(f"image_std must be above 0, got {self.std}")

    def input_size(self, height: int, width: int) -> tuple[int, int]:  # both of the frame or with its margin
        """Return the height and width that frames are resized to."""
        wanted = self.size
        if wanted is None:
            scale = min(1.0, UNSIZED_PX / max(height, width))
            wanted = max(1, round(height * scale)), max(1, round(width * scale))
        scales = wanted[0] / height, wanted[1] / width
        if self.keep_aspect:
            scales = (scales[1],) * 2 if abs(1 - scales[1]) < abs(1 - scales[0]) else (scales[0],) * 2
        sides = height * scales[0], width * scales[1]
        rounded = math.floor if self.rounds_down else round
        first, second = (max(1, rounded(side / self.multiple)) * self.multiple for side in sides)
        return first, second

    def prepare(self, frames: Tensor) -> Tensor:  # [t, 3, H, W] in [0, 1] -> [t, 3, h, w]
        """Return the network's input."""
        if self.reflect:
            vertical, horizontal = margins(*frames.shape[2:])
            frames = F.pad(frames, (horizontal, horizontal, vertical, vertical), mode="reflect")
        size = self.input_size(*frames.shape[2:])
        align = {"align_corners": True} if self.align_corners else {"antialias": self.antialias}
        # 8-bit images, which the networks were trained on, cannot overshoot.
        images = F.interpolate(frames, size, mode=self.mode, **align).clamp(0, 1)
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        top, bottom, left, right = self._borders(*size)
        return F.pad((images - mean) / std, (left, right, top, bottom), value=0.0)

    def crop(self, depth: Tensor, height: int, width: int) -> Tensor:  # [t, 1, h, w]
        """Return the part of the network's output that shows the frame, whose size is given."""
        if self.reflect:
            vertical, horizontal = margins(height, width)
            # At the frame's size, where the margin is a whole number of pixels; bilinear never overshoots.
            whole = (height + 2 * vertical, width + 2 * horizontal)
            depth = F.interpolate(depth, whole, mode="bilinear", align_corners=False)
            return depth[..., vertical : vertical + height, horizontal : horizontal + width]
        size = self.input_size(height, width)
        top, bottom, left, right = self._borders(*size)
        if not any((top, bottom, left, right)):
            return depth
        depth = F.interpolate(
            depth, (size[0] + top + bottom, size[1] + left + right), mode="bilinear", align_corners=False
        )
        return depth[..., top : top + size[0], left : left + size[1]]

    def _borders(self, height: int, width: int) -> tuple[int, int, int, int]:  # top, bottom, left, right
        vertical, horizontal = -height % self.divisor, -width % self.divisor
        return vertical // 2, vertical - vertical // 2, horizontal // 2, horizontal - horizontal // 2


def margins(height: int, width: int) -> tuple[int, int]:  # px at the top and bottom, and at the sides
    """Return ZoeDepth's margins, which keep artefacts out of the frame; less for tiny frames."""
    vertical, horizontal = (min(int(math.sqrt(side / 2) * 3), side - 1) for side in (height, width))
    return vertical, horizontal


def read_preprocessing(path: Path, model_type: str) -> Preprocessing:  # preprocessor_config.json
    """Read how a network wants its frames. Raises UserError for an unknown processor or a bad value."""
    try:
        given = json.loads(path.read_bytes())
        if not isinstance(given, dict):
            raise TypeError("must be a JSON object")
        kind = _processor_of(path, given, model_type)
        return _preprocessing(path, kind, {**_DEFAULTS[kind], **given})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: cannot be used ({reason}); get the file again") from error


def _processor_of(path: Path, given: Mapping[str, Any], model_type: str) -> str:
    name = str(given.get("image_processor_type") or given.get("feature_extractor_type") or "")
    if not name:
        return _TYPES[model_type]
    for kind in _DEFAULTS:
        if name.startswith((f"{kind}ImageProcessor", f"{kind}FeatureExtractor")):
            return kind
    raise UserError(f"{path}: the processor {name} is not supported; supported: {', '.join(_DEFAULTS)}")


def _preprocessing(path: Path, kind: str, values: Mapping[str, Any]) -> Preprocessing:
    if values["resample"] not in _RESAMPLING:
        raise UserError(f"{path}: resample must be 2 (bilinear) or 3 (bicubic), got {values['resample']}")
    resizes = values.get("do_resize", True)
    normalises = values.get("do_normalize", True)
    size = values["size"] if resizes else None
    if isinstance(size, int):
        size = {"height": size, "width": size}
    divides = kind == "DPT" and values.get("do_pad") and values.get("size_divisor")
    return Preprocessing(
        size=None if size is None else (int(size["height"]), int(size["width"])),
        keep_aspect=bool(values.get("keep_aspect_ratio", False)),
        multiple=int(values["size_divisor"]) if kind == "GLPN" else int(values.get("ensure_multiple_of", 1)),
        rounds_down=kind == "GLPN",
        mode=_RESAMPLING[values["resample"]],
        antialias=kind != "DepthPro",
        align_corners=kind == "ZoeDepth",
        mean=tuple(values.get("image_mean") or IMAGENET_STANDARD) if normalises else (0.0,) * 3,
        std=tuple(values.get("image_std") or IMAGENET_STANDARD) if normalises else (1.0,) * 3,
        reflect=kind == "ZoeDepth" and bool(values["do_pad"]),
        divisor=int(values["size_divisor"]) if divides else 1,
    )
