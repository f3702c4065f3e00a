"""One small network that paints a frame's holes in one step: a residual on top of what `fill` does (ours).

It works on pixels, frame by frame, and only on rectangles around holes. `fill` goes on from its own pictures,
as it would alone; the network sees what it painted before as one of its inputs. Had `fill` gone on from the
painted ones, each frame's change would be added to the last one's. Colours come in, and the change goes out,
as multiples of the contrast around each pixel: a dark film is painted as a light one is. There is no other
normalisation and no pixel looks farther than HALO_PX: a rectangle with that margin gives what the whole
picture gives.
Blocks mix each channel's neighbourhood first and channels afterwards (ConvNeXt, Liu et al. 2022), which costs
a fifth of full convolutions.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from secondeye.inpaint import Inpainter, Warped
from secondeye.inpaint.fill import FillState, fill, flow_back
from secondeye.inpaint.hole_crops import plan_hole_crops
from secondeye.system.errors import UserError

CHANNELS = (32, 64, 192)  # at a half, a quarter and an eighth of the size
GRID = 8  # px: sides are padded to multiples of it
LARGEST_PX = 512  # of a rectangle's own pixels a side, a multiple of GRID: bounds state
HALO_PX = 56  # around them, a multiple of GRID: how far the network looks
WHOLE = 0.999  # coverage from which on a pixel needs nothing, as in fill
DISPARITY_SCALE = 10.0  # of disparity / width: a tenth of the width becomes 1
INPUT_CHANNELS = 15  # warped 3, coverage, left 3, disparity, previous 3, its validity, filled 3
WARPED, COVERAGE, LEFT = slice(0, 3), slice(3, 4), slice(4, 7)  # of these
PREVIOUS, PREVIOUS_COLOURS, PREVIOUS_VALID = slice(8, 12), slice(8, 11), slice(11, 12)
FILLED = slice(12, 15)
CONTRAST_PX = 17  # of the square in which contrast is measured
LEAST_CONTRAST = 0.004  # a grey level of 255
LARGEST = 4.0  # of a colour, as a multiple of the contrast around it
KIND = "light 2"  # grows when weights of before no longer fit
CONFIG, WEIGHTS = "config.json", "model.safetensors"


class LightState(NamedTuple):
    """What one frame leaves for the next."""

    filled: FillState
    painted: Tensor  # [3, H, W]


class Light(nn.Module):
    """A residual U-Net on half the size and less; starts as `fill`, its last layer being zero."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.channels = channels
        half, quarter, eighth = channels
        self.head = nn.Linear(INPUT_CHANNELS * 4, half)
        self.down_half = Block(half)
        self.to_quarter = nn.Conv2d(half, quarter, 2, stride=2)
        self.down_quarter = Block(quarter)
        self.to_eighth = nn.Conv2d(quarter, eighth, 2, stride=2)
        self.middle = nn.Sequential(Block(eighth), Block(eighth), Block(eighth))
        self.from_eighth = nn.ConvTranspose2d(eighth, quarter, 2, stride=2)
        self.up_quarter = nn.Sequential(Block(quarter), Block(quarter))
        self.from_quarter = nn.ConvTranspose2d(quarter, half, 2, stride=2)
        self.up_half = Block(half)
        self.tail = nn.Conv2d(half, 3 * 4, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(
        self,
        planes: Tensor,  # [B, INPUT_CHANNELS, H, W] of `stack_inputs`
    ) -> Tensor:  # [B, 3, H, W] to add to the filled picture where it is open
        """The residual; any size."""
        height, width = planes.shape[-2:]
        beyond = (0, -width % GRID, 0, -height % GRID)
        seen, contrast = normalise(planes)
        padded = F.pad(seen, beyond, mode="replicate") if any(beyond) else seen
        packed = F.pixel_unshuffle(padded, 2).contiguous(memory_format=torch.channels_last)
        half = self.down_half(_each_pixel(self.head, packed))
        quarter = self.down_quarter(self.to_quarter(half))
        deep = self.middle(self.to_eighth(quarter))
        quarter = self.up_quarter(quarter + self.from_eighth(deep))
        half = self.up_half(half + self.from_quarter(quarter))
        residual: Tensor = F.pixel_shuffle(self.tail(F.relu(half)), 2)[..., :height, :width]
        return residual * contrast


def normalise(
    planes: Tensor,  # [B, INPUT_CHANNELS, H, W] of `stack_inputs`
) -> tuple[Tensor, Tensor]:  # the same for any brightness and contrast; [B, 1, H, W] the contrast
    """Colours less the mean around them, as multiples of the contrast there; what is black for nothing is 0.

    The residual is a multiple of that contrast, too: flat places stay as filled.
    """
    mean, contrast = local_statistics(planes[:, FILLED])
    seen = planes.clone()
    for colours, share in (
        (WARPED, planes[:, COVERAGE]),
        (LEFT, 1.0),
        (PREVIOUS_COLOURS, planes[:, PREVIOUS_VALID]),
        (FILLED, 1.0),
    ):
        seen[:, colours] = ((planes[:, colours] - share * mean) / contrast).clamp(-LARGEST, LARGEST)
    return seen, contrast


def local_statistics(
    pictures: Tensor,  # [B, 3, H, W] in [0, 1]
) -> tuple[Tensor, Tensor]:  # [B, 3, H, W] mean, [B, 1, H, W] standard deviation, LEAST_CONTRAST or more
    """Of the pixels around each pixel."""
    planes = torch.cat(
        [pictures, (pictures**2).mean(1, keepdim=True), torch.ones_like(pictures[:, :1])], dim=1
    )
    sums = _sum_along(_sum_along(planes, -1), -2)
    means = sums[:, :4] / sums[:, 4:]  # at the borders over what there is
    variance = means[:, 3:] - (means[:, :3] ** 2).mean(1, keepdim=True)
    return means[:, :3], (variance.clamp(min=0) + LEAST_CONTRAST**2).sqrt()


def _sum_along(planes: Tensor, axis: int) -> Tensor:
    """Moving sums over CONTRAST_PX along an axis, by doubling: five additions and no error that grows."""
    size, reach = planes.shape[axis], CONTRAST_PX // 2
    sides = (reach, reach) if axis == -1 else (0, 0, reach, reach)
    padded = sums = F.pad(planes, sides)
    for px in (1, 2, 4, 8):
        length = sums.shape[axis] - px
        sums = sums.narrow(axis, 0, length) + sums.narrow(axis, px, length)
    return sums.narrow(axis, 0, size) + padded.narrow(axis, CONTRAST_PX - 1, size)


class Block(nn.Module):
    """Neighbours channel by channel, then channels pixel by pixel, added to what they were given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.widen = nn.Linear(channels, 2 * channels)
        self.narrow = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + _each_pixel(lambda seen: self.narrow(F.relu(self.widen(seen), inplace=True)), self.near(x))


def _each_pixel(mix: Callable[[Tensor], Tensor], planes: Tensor) -> Tensor:
    """Change channels pixel by pixel: the same kernel for any number of threads, unlike torch's 1x1 conv."""
    return mix(planes.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def stack_inputs(
    warped: Tensor,  # [3, H, W] in [0, 1]
    coverage: Tensor,  # [1, H, W] in [0, 1]
    left: Tensor,  # [3, H, W] in [0, 1]
    disparity: Tensor,  # [1, H, W] px, of the second eye's view, the background's in holes
    filled: Tensor,  # [3, H, W] in [0, 1]
    width: int,  # px, of the whole picture that these may be a part of
) -> Tensor:  # [INPUT_CHANNELS, H, W]
    """What the network sees of one frame; PREVIOUS is zero, as at a shot's start, for `warp_previous`."""
    before = torch.zeros(4, *filled.shape[1:])
    return torch.cat([warped, coverage, left, disparity * (DISPARITY_SCALE / width), before, filled])


def flow_to_previous(
    filled: Tensor,  # [3, H, W]
    previous: Tensor,  # [3, H, W] the frame before, filled
) -> Tensor:  # [2, H, W] px
    """Where each pixel lies in the frame before, as `fill` measures it."""
    flow = flow_back(filled.numpy(), previous.numpy())
    return torch.from_numpy(np.ascontiguousarray(flow.transpose(2, 0, 1), np.float32))


def warp_previous(
    previous: Tensor,  # [B, 3, H, W] the frame before, painted
    flow: Tensor,  # [B, 2, h, w] px of `flow_to_previous`
    top: int = 0,  # px: where the flow's first pixel lies in the picture
    left: int = 0,  # px
) -> Tensor:  # [B, 4, h, w] the frame before in this one's place; 1 where it lies inside that frame, else 0
    """Move the frame before along the flow; black outside of it."""
    height, width = previous.shape[-2:]
    there_x = flow[:, 0] + torch.arange(left, left + flow.shape[-1], device=flow.device)
    there_y = flow[:, 1] + torch.arange(top, top + flow.shape[-2], device=flow.device)[:, None]
    inside = (there_x >= 0) & (there_x <= width - 1) & (there_y >= 0) & (there_y <= height - 1)
    grid = torch.stack([2 * there_x / max(width - 1, 1) - 1, 2 * there_y / max(height - 1, 1) - 1], dim=-1)
    moved = F.grid_sample(previous, grid, "bilinear", "border", align_corners=True)
    return torch.cat([moved * inside[:, None], inside[:, None].to(moved.dtype)], dim=1)


def soft_hole_mask(
    coverage: Tensor,  # [..., H, W] in [0, 1]
) -> Tensor:
    """How much of a pixel the network's residual may change: what nothing covers, exactly 0 for the rest."""
    return torch.where(coverage >= WHOLE, torch.zeros_like(coverage), 1 - coverage)


def save_light(model: Light, folder: Path) -> None:
    """Write config.json and model.safetensors; Refusal where the disk is full."""
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(weights, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps({"kind": KIND, "channels": model.channels}) + "\n")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: the weights can not be written ({error}); free some disk") from error


def load_light(folder: Path | None, device: str) -> Inpainter:
    """The inpainter of the weights in a folder; Refusal where there are none, or others."""
    if folder is None:
        raise UserError("light: paints with trained weights; name the folder they are in")
    model = load_light_network(folder).to(device)

    def inpaint(warped: Warped, state: LightState | None) -> tuple[Tensor, LightState]:
        return inpaint_frames(model, warped, state)

    return inpaint


def load_light_network(folder: Path) -> Light:
    """The network saved in a folder, in eval mode."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: has no {name}; name the folder of a trained light inpainter")
    try:
        config = json.loads((folder / CONFIG).read_text())
        weights = load_file(folder / WEIGHTS)
        if config["kind"] != KIND:
            raise UserError(f"{folder / CONFIG}: describes {config['kind']!r}, not {KIND!r}; train it again")
        half, quarter, eighth = (int(count) for count in config["channels"])
        model = Light((half, quarter, eighth))
        model.load_state_dict(weights)
    except (ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"{folder}: is no light inpainter of this version ({reason}); train it again"
        ) from error
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on CPUs
    return model.eval()


@torch.inference_mode()
def inpaint_frames(
    model: Light,
    warped: Warped,  # [T, ...]
    state: LightState | None,  # what the frame before these left; None at a shot's start
) -> tuple[Tensor, LightState]:  # [T, 3, H, W] whole pictures, and what the last frame leaves
    """Fill each frame and let the network change what was filled; the same for any windowing of a shot."""
    pictures = []
    for t in range(len(warped.frames)):
        now = Warped(*(plane[t : t + 1] for plane in warped))
        filled, kept = fill(now.frames, now.coverage, now.disparity, state.filled if state else None)
        picture = _repaint(model, now, filled[0], torch.from_numpy(kept.disparity)[None], state)
        state = LightState(kept, picture)
        pictures.append(picture)
    assert state is not None
    return torch.stack(pictures), state


def _repaint(
    model: Light,
    warped: Warped,  # [1, ...]
    filled: Tensor,  # [3, H, W]
    behind: Tensor,  # [1, H, W] px, the background's in holes
    state: LightState | None,
) -> Tensor:  # [3, H, W]
    """Run the network on rectangles that hold all holes; their margins make them as good as the whole."""
    open_ = soft_hole_mask(warped.coverage[0])
    crops = plan_hole_crops((open_[0] > 0).numpy(), GRID, HALO_PX, LARGEST_PX)
    if not crops:
        return filled
    device, width = next(model.parameters()).device, filled.shape[-1]
    flow = flow_to_previous(filled, torch.from_numpy(state.filled.frame)) if state else None
    painted = filled.clone()
    for crop in crops:
        around, own = (..., *crop.around), (..., *crop.own)
        planes = stack_inputs(
            warped.frames[0][around],
            warped.coverage[0][around],
            warped.left[0][around],
            behind[around],
            filled[around],
            width,
        )
        if state is not None and flow is not None:
            top, left = (side.start for side in crop.around)
            planes[PREVIOUS] = warp_previous(state.painted[None], flow[around][None], top, left)[0]
        residual = model(planes[None].to(device))[0].to(filled.device)[(..., *crop.own_inside)]
        changed = (filled[own] + open_[own] * residual).clamp(0, 1)
        painted[own] = torch.where(open_[own] > 0, changed, filled[own])
    return painted
