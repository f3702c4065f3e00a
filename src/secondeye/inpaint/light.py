"""The light inpainter: a small one-step network that refines the output of `fill`.

It runs on crops around holes. `fill` propagates only its own output; the network takes its own previous
output as one of its inputs. Feeding the network's output back to `fill` would accumulate its errors.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from secondeye.inpaint.fill import FillState, fill
from secondeye.inpaint.hole_crops import plan_hole_crops
from secondeye.inpaint.inpainter import Inpainted, Inpainter, InpainterState, Warped, in_form_of
from secondeye.inpaint.light_network import (
    HALO_PX,
    PREVIOUS,
    SIDE_MULTIPLE_PX,
    Light,
    flow_to_previous,
    soft_hole_mask,
    stack_inputs,
    warp_previous,
)
from secondeye.system.errors import UserError

MAX_CROP_PX = 512  # side of a crop without its margin, a multiple of SIDE_MULTIPLE_PX: bounds memory
KIND = "light 2"  # in config.json; changes when older weights no longer fit
CONFIG, WEIGHTS = "config.json", "model.safetensors"


class LightState(NamedTuple):
    """State carried between frames."""

    filled: FillState
    frame: Tensor  # [3, H, W], inpainted

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays by name."""
        return {"inpainted": self.frame, **self.filled._asdict()}

    @classmethod
    def from_tensors(cls, tensors: InpainterState) -> Self:
        """Return the state that `tensors` gave."""
        filled = {name: plane for name, plane in tensors.items() if name != "inpainted"}
        return cls(FillState(**filled), tensors["inpainted"])


def save_light(model: Light, folder: Path) -> None:
    """Write config.json and model.safetensors; UserError if they cannot be written."""
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(weights, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps({"kind": KIND, "channels": model.channels}) + "\n")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: the weights cannot be written ({error}); free some disk space") from error


def load_light(folder: Path | None, device: str) -> Inpainter:
    """Load the light inpainter from a folder; UserError if its weights are missing or do not fit.

    The network runs on `device`, on crops; `fill` and all else run on the CPU, where windows are copied to.
    """
    if folder is None:
        raise UserError("the light inpainter needs weights: pass --model")
    model = load_light_network(folder).to(device)

    def inpaint(windows: Iterable[Warped], state: InpainterState | None = None) -> Iterator[Inpainted]:
        carried = None if state is None else LightState.from_tensors(state)
        for warped in windows:
            frames, carried = inpaint_frames(model, warped.to("cpu").as_floats(), carried)
            view = warped.frames
            yield Inpainted(in_form_of(view, frames).to(view.device), carried.tensors())

    return inpaint


def load_light_network(folder: Path) -> Light:
    """Load the network from a folder, in eval mode; UserError if its weights are missing or do not fit."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: {name} is missing; name the folder of a trained light inpainter")
    try:
        config = json.loads((folder / CONFIG).read_text())
        weights = load_file(folder / WEIGHTS)
        if config["kind"] != KIND:
            raise UserError(f"{folder / CONFIG}: kind is {config['kind']!r}, not {KIND!r}; train it again")
        half, quarter, eighth = (int(count) for count in config["channels"])
        model = Light((half, quarter, eighth))
        model.load_state_dict(weights)
    except (ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"{folder}: not a light inpainter of this version ({reason}); train it again"
        ) from error
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on CPUs
    return model.eval()


@torch.inference_mode()
def inpaint_frames(
    model: Light,
    warped: Warped,  # [T, ...]
    state: LightState | None,  # of the frame before; None at the start of a shot
) -> tuple[Tensor, LightState]:  # [T, 3, H, W], and the state after the last frame
    """Fill each frame and refine it with the network; independent of window size."""
    frames = []
    for t in range(len(warped.frames)):
        current = warped.take(slice(t, t + 1))
        filled, fill_state = fill(
            current.frames, current.coverage, current.disparity, state.filled if state is not None else None
        )
        background = fill_state.disparity[None]
        frame = _refine(model, current, filled[0], background, fill_state.gray, state)
        state = LightState(fill_state, frame)
        frames.append(frame)
    assert state is not None
    return torch.stack(frames), state


def _refine(
    model: Light,
    warped: Warped,  # [1, ...]
    filled: Tensor,  # [3, H, W]
    background: Tensor,  # [1, H, W] px, the background's disparity in holes
    gray: Tensor,  # uint8 [h, w], of the filled frame
    state: LightState | None,
) -> Tensor:  # [3, H, W]
    """Run the network on crops around all holes.

    Margins cover the receptive field, so the result equals full-frame inference.
    """
    holes = soft_hole_mask(warped.coverage[0])
    crops = plan_hole_crops((holes[0] > 0).numpy(), SIDE_MULTIPLE_PX, HALO_PX, MAX_CROP_PX)
    if not crops:
        return filled
    device, width = next(model.parameters()).device, filled.shape[-1]
    flow = None
    if state is not None:
        flow = flow_to_previous(gray, state.filled.gray, *filled.shape[-2:])
    refined = filled.clone()
    for crop in crops:
        outer, inner = (..., *crop.outer), (..., *crop.inner)
        planes = stack_inputs(
            warped.frames[0][outer],
            warped.coverage[0][outer],
            warped.left[0][outer],
            background[outer],
            filled[outer],
            width,
        )
        if state is not None and flow is not None:
            top, left = (side.start for side in crop.outer)
            planes[PREVIOUS] = warp_previous(state.frame[None], flow[outer][None], top, left)[0]
        residual = model(planes[None].to(device))[0].to(filled.device)[(..., *crop.inner_in_outer)]
        changed = (filled[inner] + holes[inner] * residual).clamp(0, 1)
        refined[inner] = torch.where(holes[inner] > 0, changed, filled[inner])
    return refined
