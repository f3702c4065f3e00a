"""The light inpainter: a small one-step network that refines the output of `fill`.

It runs on crops around holes. `fill` propagates only its own output; the network takes its own previous
output as one of its inputs. Feeding the network's output back to `fill` would accumulate its errors.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from secondeye.imaging.arrays import frames_from_uint8, frames_to_uint8
from secondeye.inpaint.fill import FillState, fill, interleaved
from secondeye.inpaint.hole_crops import HoleCrop, plan_hole_crops
from secondeye.inpaint.interface import Inpainted, Inpainter, InpainterState, Warped, require_finite_pixels
from secondeye.inpaint.light_inputs import (
    HALO_PX,
    SIDE_MULTIPLE_PX,
    flow_to_previous,
    pack_crop,
    soft_hole_mask,
)
from secondeye.inpaint.light_network import Light
from secondeye.system.errors import UserError

MAX_THREADS = 4  # crops at the same time, at most: one takes up to 130 MiB
MAX_CROP_PX = 512  # side of a crop without its margin, a multiple of SIDE_MULTIPLE_PX: bounds memory
KIND = "light 2"  # in config.json; changes when older weights no longer fit
CONFIG, WEIGHTS = "config.json", "model.safetensors"

MapCrops = Callable[[Callable[[HoleCrop], None], list[HoleCrop]], Iterable[None]]  # map, or that of a pool


class LightState(NamedTuple):
    """State carried between frames."""

    filled: FillState
    frame: Tensor  # [3, H, W] in [0, 1], or uint8 [H, W, 3]: inpainted

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
    threads = min(torch.get_num_threads(), MAX_THREADS)

    def inpaint(windows: Iterable[Warped], state: InpainterState | None = None) -> Iterator[Inpainted]:
        carried = None if state is None else LightState.from_tensors(state)
        with ThreadPoolExecutor(threads) as pool:
            for warped in windows:
                frames, carried = inpaint_frames(model, warped.to("cpu"), carried, pool.map)
                yield Inpainted(frames.to(warped.frames.device), carried.tensors())
                del frames, warped  # or they would be kept while the next window is warped

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
    # In this layout the network reshapes its weights without a copy.
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()


@torch.inference_mode()
def inpaint_frames(
    model: Light,
    warped: Warped,  # [T, ...]
    state: LightState | None,  # of the frame before; None at the start of a shot
    map_crops: MapCrops = map,  # may refine crops in several threads
) -> tuple[Tensor, LightState]:  # in the form of the frames, and the state after the last frame
    """Fill each frame and refine it with the network; independent of window size.

    Raises UserError if frames are 8-bit and the network returns NaN or infinite pixels.
    """
    frames = []
    for t in range(len(warped.frames)):
        current = warped.take(slice(t, t + 1))
        filled, fill_state = fill(
            current.frames, current.coverage, current.disparity, state.filled if state is not None else None
        )
        frame = _refine(model, current, filled[0], fill_state, state, map_crops)
        state = LightState(fill_state, frame)
        frames.append(frame)
    assert state is not None
    return torch.stack(frames), state


def _refine(
    model: Light,
    warped: Warped,  # [1, ...]
    filled: Tensor,  # [3, H, W], or uint8 [H, W, 3]
    now: FillState,
    state: LightState | None,
    map_crops: MapCrops,
) -> Tensor:  # in the form of `filled`
    """Run the network on crops around all holes; those at the frame's border stay as `fill` extended them.

    Margins cover the receptive field, so the result equals full-frame inference.
    """
    coverage = warped.coverage[0]
    hole_mask = soft_hole_mask(coverage)
    crops = plan_hole_crops((hole_mask[0] > 0).numpy(), SIDE_MULTIPLE_PX, HALO_PX, MAX_CROP_PX)
    if not crops:
        return filled
    height, width = now.visible.shape
    flow = None if state is None else flow_to_previous(now.gray, state.filled.gray, height, width)
    refined = filled.clone()
    frames = warped.frames[0], warped.left[0], filled, filled if state is None else state.frame
    shown, left, composed, previous = map(interleaved, frames)

    @torch.inference_mode()  # a setting of each thread
    def refine(crop: HoleCrop) -> None:
        packed, contrast = pack_crop(
            *(shown, coverage[0].numpy(), left, now.disparity.numpy(), composed, previous, flow),
            *(*crop.outer, crop.margin),
        )
        device = model.head.weight.device
        residual = model(packed.to(device), contrast.to(device), crop.margin)[0].cpu()
        holes, before = hole_mask[(..., *crop.inner)], crop_frame(filled, *crop.inner)
        changed = torch.where(holes > 0, (before + holes * residual).clamp(0, 1), before)
        if refined.dtype == torch.uint8:
            require_finite_pixels(changed)
            refined[crop.inner] = frames_to_uint8(changed[None])[0]
        else:
            refined[(..., *crop.inner)] = changed

    list(map_crops(refine, crops))  # their inner parts do not overlap
    return refined


def crop_frame(
    frame: Tensor,  # [3, H, W] in [0, 1], or uint8 [H, W, 3]
    rows: slice,
    columns: slice,
) -> Tensor:  # [3, h, w] in [0, 1]
    """Return a crop of a frame of either form as floats."""
    if frame.dtype == torch.uint8:
        return frames_from_uint8(frame[None, rows, columns])[0]
    return frame[:, rows, columns]
