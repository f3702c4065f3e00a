"""The rivals: everything that can stand in for the second eye, from a copy of the left one to whole models.

- floors: what a method must beat to be worth anything
- inpainters: with the clip's own disparity, so that only the painting differs
- ceilings: what an inpainter can not surpass, as it works
- models: depth and inpainter together, the depth brought to the clip's disparity by one scale and one shift
- external: films made elsewhere, as they are
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import cv2
import torch
from torch import Tensor

from secondeye.depth import DepthEstimator, make_depth_estimator
from secondeye.depth.edges import sharpen, upsample
from secondeye.evaluation.eval_clips import EvalFrames, align
from secondeye.imaging.arrays import frames_from_uint8, frames_to_uint8, occlusion_mask
from secondeye.inpaint import Inpainter, Warped, make_inpainter
from secondeye.system.files import hash_file, hash_weights
from secondeye.system.process import best_device
from secondeye.warp import warp

_WINDOW = 8  # frames, as in a conversion
_SHIFTS_PERCENT = 10.0  # of the width, searched for the best constant shift
_EVERY = 4  # frames: it is chosen on one in so many
_REACH_PX = 3  # of OpenCV's inpainting: the radius its users take


class NotNumbers(Exception):
    """A method made a pixel that is not finite. It has no score: a NaN would only leave out its bad clips."""


class Made(NamedTuple):
    """What a method made of a clip."""

    right: Tensor  # [T, 3, H, W]
    disparity: Tensor | None  # [T, 1, H, W] px, where the method estimated it by itself


@dataclass(frozen=True)
class Method:
    """One rival: how it is called, and what it is made of."""

    name: str  # as it stands in tables
    kind: str  # floor, inpainter, ceiling, model, external
    depth: str = ""  # of models
    depth_weights: Path | None = None
    inpainter: str = ""  # of inpainters and models
    inpaint_weights: Path | None = None
    films: tuple[tuple[str, Path], ...] = ()  # of external: Film.id, and the file made of it

    def film_of(self, film: str) -> Path | None:
        """What was made elsewhere of this film (Film.id)."""
        return dict(self.films).get(film)

    def covers(self, film: str) -> bool:
        """Whether there is anything to judge on this film (Film.id)."""
        return self.kind != "external" or self.film_of(film) is not None

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Of what was made elsewhere, by Film.id."""
        return {film: hash_file(path) for film, path in self.films}

    @cached_property
    def made_of(self) -> tuple[str, ...]:
        """What its result depends on besides code: its parts, and what they learnt, by content."""
        folders = (self.depth_weights, self.inpaint_weights)
        weights = [hash_weights(folder) if folder is not None else "" for folder in folders]
        return (self.kind, self.depth, self.inpainter or self.name, *weights)


BASELINES = (
    Method("identity", "floor"),
    Method("best shift", "floor"),
    Method("nearest", "floor"),
    Method("Telea", "floor"),
    Method("Navier-Stokes", "floor"),
)


def make_right(method: Method, clip: EvalFrames) -> Made:
    """Have a method make the right eye of a clip. Raises NotNumbers, and Refusal for weights."""
    match method.kind, method.name:
        case "floor", "identity":
            return Made(clip.left, None)
        case "floor", "best shift":
            return Made(best_shift(clip.left, clip.right), None)
        case "floor", "nearest":
            return Made(inpaint_left(clip.left, clip.disparity, fill_nearest), None)
        case "floor", "Telea":
            return Made(
                inpaint_left(clip.left, clip.disparity, partial(fill_opencv, cv2.INPAINT_TELEA)), None
            )
        case "floor", "Navier-Stokes":
            return Made(inpaint_left(clip.left, clip.disparity, partial(fill_opencv, cv2.INPAINT_NS)), None)
        case "ceiling", _:
            decoded = load_vae_round_trip(method, method.made_of)(clip.right)
            warped = warp(clip.left, clip.disparity)
            return Made(warped.coverage * warped.frames + (1 - warped.coverage) * decoded, None)
        case "inpainter", _:
            inpainter = load_inpainter(method, method.made_of)
            return Made(inpaint_left(clip.left, clip.disparity, inpainter), None)
        case "model", _:
            disparity = estimate(clip, load_estimator(method, method.made_of))
            inpainter = load_inpainter(method, method.made_of)
            return Made(inpaint_left(clip.left, sharpen(disparity, clip.left), inpainter), disparity)
    raise ValueError(f"there is no {method.kind} called {method.name}")


@lru_cache(maxsize=8)  # methods come clip by clip
def load_estimator(method: Method, made_of: tuple[str, ...]) -> DepthEstimator:
    """The method's depth, read once a process. Raises Refusal where its weights can not be read."""
    return make_depth_estimator(method.depth, method.depth_weights, best_device())


@lru_cache(maxsize=8)
def load_vae_round_trip(method: Method, made_of: tuple[str, ...]) -> Callable[[Tensor], Tensor]:
    """The method's autoencoder, there and back. Raises Refusal where its weights can not be read."""
    from secondeye.inpaint.diffusion import load_vae_round_trip as load_autoencoder

    assert method.inpaint_weights is not None
    return load_autoencoder(method.inpaint_weights, best_device())


@lru_cache(maxsize=8)
def load_inpainter(method: Method, made_of: tuple[str, ...]) -> Inpainter:
    """The method's inpainter, read once a process. Raises Refusal where its weights can not be read."""
    return make_inpainter(method.inpainter, method.inpaint_weights, best_device())


def estimate(clip: EvalFrames, estimator: DepthEstimator) -> Tensor:
    """The depth of the clip as disparity [T, 1, H, W] px, aligned to the matched one. Raises NotNumbers."""
    depth = torch.cat([found.depth for found in estimator(iter(clip.left.split(_WINDOW)))])
    require_numbers(depth)
    return align(upsample(depth, clip.left), clip.disparity)


def require_numbers(made: Tensor) -> None:
    """Raise NotNumbers unless all that was made is finite."""
    if not bool(made.isfinite().all()):
        raise NotNumbers


def inpaint_left(left: Tensor, disparity: Tensor, inpainter: Inpainter) -> Tensor:
    """Warp the left eye and paint what is open, window by window as in a conversion. Raises NotNumbers."""
    state, made = None, []
    for frames, near in zip(left.split(_WINDOW), disparity.split(_WINDOW), strict=True):
        right, state = inpainter(Warped(frames, *warp(frames, near)), state)
        require_numbers(right)
        made.append(right.clamp(0, 1))
    return torch.cat(made)


def best_shift(left: Tensor, right: Tensor) -> Tensor:
    """The left eye moved by the one whole number of pixels that comes closest to the truth: an oracle."""
    reach = round(_SHIFTS_PERCENT / 100 * left.shape[-1])
    here, there = left[::_EVERY], right[::_EVERY]
    errors = {
        shift: float(((_shifted(here, shift) - there) ** 2).mean()) for shift in range(-reach, reach + 1)
    }
    return _shifted(left, min(errors, key=lambda shift: (errors[shift], abs(shift))))


def _shifted(frames: Tensor, shift_px: int) -> Tensor:
    """Moved to the left, the border's pixels repeated."""
    columns = (torch.arange(frames.shape[-1]) + shift_px).clamp(0, frames.shape[-1] - 1)
    return frames[..., columns]


def fill_nearest(warped: Warped, state: None) -> tuple[Tensor, None]:
    """Give every open pixel the colour of the nearest pixel of its row that was seen."""
    width = warped.frames.shape[-1]
    place = torch.arange(width).expand(warped.coverage.shape)
    seen = warped.coverage > 0
    before = torch.where(seen, place, -(10**6)).cummax(-1).values
    after = torch.where(seen, place, 10**6).flip(-1).cummin(-1).values.flip(-1)
    source = torch.where(place - before <= after - place, before, after).clamp(0, width - 1)
    return warped.frames.gather(-1, source.expand_as(warped.frames)), state


def fill_opencv(method: int, warped: Warped, state: None) -> tuple[Tensor, None]:
    """Paint holes as OpenCV does (Telea 2004; Bertalmio et al. 2001); `method` is cv2's number for it."""
    pictures = frames_to_uint8(warped.frames).numpy()
    holes = occlusion_mask(warped.coverage)[:, 0].byte().numpy()
    painted = [cv2.inpaint(p, hole, _REACH_PX, method) for p, hole in zip(pictures, holes, strict=True)]
    frames = frames_from_uint8(torch.stack([torch.from_numpy(picture) for picture in painted]))
    return warped.coverage * warped.frames + (1 - warped.coverage) * frames, state
