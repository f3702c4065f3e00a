"""Everything that is scored, from a copy of the left view to whole models, by kind:

- baseline: a trivial method that a useful one must beat
- inpainter: gets the clip's matched disparity, so that methods differ only in inpainting
- ceiling: holes filled with the true right view after a round trip through the diffusion model's autoencoder
- model: depth and inpainter; the depth is aligned to the matched disparity by one scale and one shift. The
  rival Deep3D is one, too: it makes the right view itself, which is scored unchanged
- external: films converted elsewhere, unchanged
- aligned: the same films, against the true right view at their own strength and convergence
- flat: a film without depth beside each aligned one
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import cv2
import torch
from torch import Tensor

from secondeye.conversion.warped_window import warped_window
from secondeye.deep3d.model import load_deep3d, make_right_view
from secondeye.deep3d.network import Deep3D
from secondeye.depth import DepthEstimator
from secondeye.depth.edges import sharpen, upsample
from secondeye.depth.estimators import make_depth_estimator
from secondeye.evaluation.baselines import as_inpainter, best_shift, fill_nearest, fill_opencv
from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.non_finite import require_finite
from secondeye.imaging.backends import on_best_device
from secondeye.inpaint import Inpainter, conditioning_of, hash_program, inpaint_shot, make_inpainter
from secondeye.system.files import hash_file, hash_weights
from secondeye.system.process import best_device
from secondeye.warp import warp

DEEP3D = "deep3d"
_WINDOW = 8  # frames, as in a conversion
ALIGNED_KINDS = ("aligned", "flat")  # of films converted elsewhere


class MethodOutput(NamedTuple):
    """The right view that a method synthesised for a clip."""

    right: Tensor  # [T, 3, H, W]
    disparity: Tensor | None  # [T, 1, H, W] px; None unless the method estimates depth itself


@dataclass(frozen=True)
class Method:
    """A method to score: its name and its parts."""

    name: str  # as shown in tables
    kind: str  # baseline, inpainter, ceiling, model, external, aligned, flat
    depth: str = ""  # of models; DEEP3D for that rival, which needs no inpainter
    depth_weights: Path | None = None
    inpainter: str = ""  # of inpainters and models; a command may only come from params.yaml
    inpaint_weights: Path | None = None
    films: tuple[tuple[str, Path], ...] = ()  # of external methods: Film.id and the converted film

    def external_film(self, film: str) -> Path | None:
        """Return the film that was converted elsewhere from this one (Film.id)."""
        return dict(self.films).get(film)

    def covers(self, film: str) -> bool:
        """Return whether the method can be scored on this film (Film.id)."""
        return not self.films or self.external_film(film) is not None

    @cached_property
    def film_hashes(self) -> dict[str, str]:
        """The content hash of each external film, by Film.id."""
        return {film: hash_file(path) for film, path in self.films}

    @cached_property
    def content(self) -> tuple[str, ...]:
        """What the output depends on besides code: kind, parts, content hashes of program and weights."""
        folders = (self.depth_weights, self.inpaint_weights)
        weights = [hash_weights(folder) if folder is not None else "" for folder in folders]
        return (self.kind, self.depth, self.inpainter or self.name, hash_program(self.inpainter), *weights)


BASELINES = (
    Method("identity", "baseline"),
    Method("best shift", "baseline"),
    Method("nearest", "baseline"),
    Method("Telea", "baseline"),
    Method("Navier-Stokes", "baseline"),
)


def make_right(method: Method, clip: EvalFrames) -> MethodOutput:
    """Synthesise the right view of a clip. Raises NonFiniteError, and UserError for unreadable weights."""
    match method.kind, method.name:
        case "baseline", "identity":
            return MethodOutput(clip.left, None)
        case "baseline", "best shift":
            return MethodOutput(best_shift(clip.left, clip.right), None)
        case "baseline", "nearest":
            return _inpaint_clip(clip, as_inpainter(fill_nearest))
        case "baseline", "Telea":
            return _inpaint_clip(clip, as_inpainter(partial(fill_opencv, cv2.INPAINT_TELEA)))
        case "baseline", "Navier-Stokes":
            return _inpaint_clip(clip, as_inpainter(partial(fill_opencv, cv2.INPAINT_NS)))
        case "ceiling", _:
            decoded = load_vae_round_trip(method, method.content)(clip.right)
            warped = on_best_device(warp)(clip.left, clip.disparity)
            return MethodOutput(warped.coverage * warped.frames + (1 - warped.coverage) * decoded, None)
        case "inpainter", _:
            return _inpaint_clip(clip, load_inpainter(method, method.content))
        case "model", _ if method.depth == DEEP3D:
            return MethodOutput(make_right_view(load_rival(method, method.content), clip.left), None)
        case "model", _:
            small = estimate_disparity(clip, load_estimator(method, method.content))
            inpainter, left = load_inpainter(method, method.content), clip.left.to(best_device())
            sharp = sharpen(small.to(left.device), left)
            return MethodOutput(warp_and_inpaint(left, sharp, inpainter), upsample(small, clip.left))
    raise ValueError(f"unknown {method.kind}: {method.name}")


# The caches are keyed by content: jobs come clip by clip, each with its own copy of the method.


@lru_cache(maxsize=8)
def load_estimator(method: Method, content: tuple[str, ...]) -> DepthEstimator:
    """Load the method's depth estimator once per process. Raises UserError for unreadable weights."""
    return make_depth_estimator(method.depth, method.depth_weights, best_device())


@lru_cache(maxsize=8)
def load_rival(method: Method, content: tuple[str, ...]) -> Deep3D:
    """Load Deep3D once per process. Raises UserError for unreadable weights."""
    assert method.depth_weights is not None
    return load_deep3d(method.depth_weights, best_device())


@lru_cache(maxsize=8)
def load_vae_round_trip(method: Method, content: tuple[str, ...]) -> Callable[[Tensor], Tensor]:
    """Load the method's autoencoder as encode + decode. Raises UserError for unreadable weights."""
    from secondeye.inpaint import diffusion

    assert method.inpaint_weights is not None
    return diffusion.load_vae_round_trip(method.inpaint_weights, best_device())


@lru_cache(maxsize=8)
def load_inpainter(method: Method, content: tuple[str, ...]) -> Inpainter:
    """Load the method's inpainter once per process. Raises UserError for unreadable weights."""
    return make_inpainter(method.inpainter, method.inpaint_weights, best_device())


def estimate_disparity(
    clip: EvalFrames, estimator: DepthEstimator
) -> Tensor:  # [T, 1, h, w] px of the clip's width, as large as the estimator's depth
    """Estimate the clip's depth and align it to the matched disparity. Raises NonFiniteError."""
    depth = torch.cat([estimate.depth for estimate in estimator(iter(clip.left.split(_WINDOW)))])
    require_finite(depth)
    scale, shift = fit_scale_and_shift(upsample(depth, clip.left), clip.disparity)
    return scale * depth + shift


def fit_scale_and_shift(
    depth: Tensor,  # [T, 1, H, W] relative inverse depth
    disparity: Tensor,  # [T, 1, H, W] px
) -> tuple[float, float]:
    """Fit depth to disparity by one non-negative scale and one shift per clip (least squares).

    Viewers set these two with strength and convergence, so a model is scored on the rest.
    """
    x, y = depth.double(), disparity.double()
    variance = ((x - x.mean()) ** 2).mean()
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    scale = max(0.0, float(covariance / variance.clamp_min(1e-12)))
    return scale, float(y.mean() - scale * x.mean())


def warp_and_inpaint(
    left: Tensor,  # [T, 3, H, W]; on any device, like the disparity
    disparity: Tensor,  # [T, 1, H, W] px
    inpainter: Inpainter,
) -> Tensor:  # [T, 3, H, W] in [0, 1], on the CPU
    """Warp the left view and inpaint it on the best device, window by window as in a conversion.

    Raises NonFiniteError.
    """
    device, conditioning = best_device(), conditioning_of(inpainter)
    windows = zip(left.split(_WINDOW), disparity.split(_WINDOW), strict=True)
    moved = ((frames.to(device), plane.to(device)) for frames, plane in windows)
    right = inpaint_shot(inpainter, (warped_window(*window, conditioning) for window in moved)).cpu()
    require_finite(right)
    return right.clamp(0, 1)


def _inpaint_clip(clip: EvalFrames, inpainter: Inpainter) -> MethodOutput:
    return MethodOutput(warp_and_inpaint(clip.left, clip.disparity, inpainter), None)
