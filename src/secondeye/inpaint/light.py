"""One small network that paints a frame's holes in one step: a residual on top of what `fill` does (ours).

It works on pixels, frame by frame, and only where something is open. `fill` goes on from its own pictures,
as it would alone; the network sees what it painted before as one of its inputs. Had `fill` gone on from the
painted ones, each frame's change would be added to the last one's. There is no normalisation in the network
and no pixel looks farther than HALO_PX: a picture may be cut into tiles, and no seam shows.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from secondeye.inpaint import Inpainter, Warped
from secondeye.inpaint.fill import Memory as FillMemory
from secondeye.inpaint.fill import fill, flow_back
from secondeye.refusal import Refusal

CHANNELS = (32, 64, 160)  # at a half, a quarter and an eighth of the size: 1.2 M parameters
GRID = 8  # px: sides are padded to multiples of it
TILE_PX = 256  # of a tile's own pixels, a multiple of GRID
HALO_PX = 72  # around them, a multiple of GRID: how far the network looks
WHOLE = 0.999  # coverage from which on a pixel needs nothing, as in fill
DISPARITY_SCALE = 10.0  # of disparity / width: a tenth of the width becomes 1
PLANES = 15  # warped 3, coverage, left 3, disparity, previous 3, its validity, filled 3
WARPED, BEFORE, FILLED = slice(0, 3), slice(8, 12), slice(12, 15)  # of these
CONTRAST_PX = 17  # of the square in which contrast is measured
LEAST_CONTRAST = 0.004  # a grey level of 255
CONFIG, WEIGHTS = "config.json", "model.safetensors"


class Memory(NamedTuple):
    """What one frame leaves for the next."""

    filled: FillMemory
    painted: Tensor  # [3, H, W]


class Light(nn.Module):
    """A residual U-Net on half the size and less; starts as `fill`, its last layer being zero."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.channels = channels
        half, quarter, eighth = channels
        self.head = nn.Conv2d(PLANES * 4, half, 3, padding=1)
        self.down_half = Block(half)
        self.to_quarter = nn.Conv2d(half, quarter, 2, stride=2)
        self.down_quarter = Block(quarter)
        self.to_eighth = nn.Conv2d(quarter, eighth, 2, stride=2)
        self.middle = nn.Sequential(Block(eighth), Block(eighth))
        self.from_eighth = nn.ConvTranspose2d(eighth, quarter, 2, stride=2)
        self.up_quarter = Block(quarter)
        self.from_quarter = nn.ConvTranspose2d(quarter, half, 2, stride=2)
        self.up_half = Block(half)
        self.tail = nn.Conv2d(half, 3 * 4, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(
        self,
        planes: Tensor,  # [B, PLANES, H, W] of `gather_planes`
    ) -> Tensor:  # [B, 3, H, W] to add to the filled picture where it is open
        """The residual; any size."""
        height, width = planes.shape[-2:]
        padded = F.pad(planes, (0, -width % GRID, 0, -height % GRID), mode="replicate")
        half = self.down_half(self.head(F.pixel_unshuffle(padded, 2)))
        quarter = self.down_quarter(self.to_quarter(half))
        deep = self.middle(self.to_eighth(quarter))
        quarter = self.up_quarter(quarter + self.from_eighth(deep))
        half = self.up_half(half + self.from_quarter(quarter))
        residual: Tensor = F.pixel_shuffle(self.tail(F.silu(half)), 2)[..., :height, :width]
        return residual * local_contrast(planes[:, FILLED])


def local_contrast(
    pictures: Tensor,  # [B, 3, H, W] in [0, 1]
) -> Tensor:  # [B, 1, H, W]
    """Standard deviation around each pixel. The residual is a multiple of it: flat places stay as filled."""
    squares = torch.cat([pictures, pictures**2], dim=1)
    means = _average_along(_average_along(squares, (CONTRAST_PX, 1)), (1, CONTRAST_PX))
    variance = (means[:, 3:] - means[:, :3] ** 2).mean(1, keepdim=True)
    return (variance.clamp(min=0) + LEAST_CONTRAST**2).sqrt()


def _average_along(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Moving average; at the borders over what there is. One axis after the other is eight times as fast."""
    reach = (size[0] // 2, size[1] // 2)
    return F.avg_pool2d(planes, size, 1, reach, count_include_pad=False)


class Block(nn.Module):
    """Two convolutions added to what they were given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.second(F.silu(self.first(F.silu(x))))
        return x + changed


def gather_planes(
    warped: Tensor,  # [3, H, W] in [0, 1]
    coverage: Tensor,  # [1, H, W] in [0, 1]
    left: Tensor,  # [3, H, W] in [0, 1]
    disparity: Tensor,  # [1, H, W] px, of the second eye's view, the background's in holes
    filled: Tensor,  # [3, H, W] in [0, 1]
    width: int,  # px, of the whole picture that these may be a part of
) -> Tensor:  # [PLANES, H, W]
    """What the network sees of one frame; BEFORE is zero, as at a shot's start, and is for `pull_back`."""
    before = torch.zeros(4, *filled.shape[1:])
    return torch.cat([warped, coverage, left, disparity * (DISPARITY_SCALE / width), before, filled])


def find_flow(
    filled: Tensor,  # [3, H, W]
    previous: Tensor,  # [3, H, W] the frame before, filled
) -> Tensor:  # [2, H, W] px
    """Where each pixel lies in the frame before, as `fill` measures it."""
    flow = flow_back(filled.numpy(), previous.numpy())
    return torch.from_numpy(np.ascontiguousarray(flow.transpose(2, 0, 1), np.float32))


def pull_back(
    previous: Tensor,  # [B, 3, H, W] the frame before, painted
    flow: Tensor,  # [B, 2, H, W] px of `find_flow`
) -> Tensor:  # [B, 4, H, W] the frame before in this one's place; 1 where it lies inside that frame, else 0
    """Move the frame before along the flow; black outside of it."""
    height, width = flow.shape[-2:]
    there_x = flow[:, 0] + torch.arange(width, device=flow.device)
    there_y = flow[:, 1] + torch.arange(height, device=flow.device)[:, None]
    inside = (there_x >= 0) & (there_x <= width - 1) & (there_y >= 0) & (there_y <= height - 1)
    grid = torch.stack([2 * there_x / max(width - 1, 1) - 1, 2 * there_y / max(height - 1, 1) - 1], dim=-1)
    moved = F.grid_sample(previous, grid, "bilinear", "border", align_corners=True)
    return torch.cat([moved * inside[:, None], inside[:, None].to(moved.dtype)], dim=1)


def open_share(
    coverage: Tensor,  # [..., H, W] in [0, 1]
) -> Tensor:
    """How much of a pixel the network's residual may change: what nothing covers, exactly 0 for the rest."""
    return torch.where(coverage >= WHOLE, torch.zeros_like(coverage), 1 - coverage)


def save_light(model: Light, folder: Path) -> None:
    """Write config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps({"kind": "light", "channels": model.channels}) + "\n")


def load_light(folder: Path | None, device: str) -> Inpainter:
    """The inpainter of the weights in a folder; Refusal where there are none, or others."""
    if folder is None:
        raise Refusal("light: paints with trained weights; name the folder they are in")
    model = read_light(folder).to(device)

    def inpaint(warped: Warped, memory: Memory | None) -> tuple[Tensor, Memory]:
        return paint(model, warped, memory)

    return inpaint


def read_light(folder: Path) -> Light:
    """The network saved in a folder, in eval mode."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise Refusal(f"{folder}: has no {name}; name the folder of a trained light inpainter")
    try:
        config = json.loads((folder / CONFIG).read_text())
        weights = load_file(folder / WEIGHTS)
        if config["kind"] != "light":
            raise Refusal(f"{folder / CONFIG}: describes {config['kind']!r}, not a light inpainter")
        half, quarter, eighth = (int(count) for count in config["channels"])
        model = Light((half, quarter, eighth))
        model.load_state_dict(weights)
    except (ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise Refusal(
            f"{folder}: is no light inpainter of this version ({reason}); train it again"
        ) from error
    return model.eval()


@torch.inference_mode()
def paint(
    model: Light,
    warped: Warped,  # [T, ...]
    memory: Memory | None,  # what the frame before these left; None at a shot's start
) -> tuple[Tensor, Memory]:  # [T, 3, H, W] whole pictures, and what the last frame leaves
    """Fill each frame and let the network change what was filled; the same for any windowing of a shot."""
    pictures = []
    for t in range(len(warped.frames)):
        left, frame, coverage, disparity = (plane[t : t + 1] for plane in warped)
        filled, kept = fill(frame, coverage, disparity, memory.filled if memory else None)
        picture, open_ = filled[0], open_share(coverage[0])
        if bool(open_.any()):
            behind = torch.from_numpy(kept.disparity)[None]
            planes = gather_planes(frame[0], coverage[0], left[0], behind, picture, frame.shape[-1])
            if memory is not None:
                flow = find_flow(picture, torch.from_numpy(memory.filled.frame))
                planes[BEFORE] = pull_back(memory.painted[None], flow[None])[0]
            picture = _add_residual(model, planes, picture, open_)
        memory = Memory(kept, picture)
        pictures.append(picture)
    assert memory is not None
    return torch.stack(pictures), memory


def _add_residual(
    model: Light,
    planes: Tensor,  # [PLANES, H, W]
    filled: Tensor,  # [3, H, W]
    open_: Tensor,  # [1, H, W]
) -> Tensor:  # [3, H, W]
    """Run the network on the tiles that hold holes, each with a margin that makes it as good as the whole."""
    device = next(model.parameters()).device
    height, width = filled.shape[1:]
    painted = filled.clone()
    for top in range(0, height, TILE_PX):
        for left in range(0, width, TILE_PX):
            own = (..., slice(top, top + TILE_PX), slice(left, left + TILE_PX))
            if not bool(open_[own].any()):
                continue
            first_row, first_column = max(0, top - HALO_PX), max(0, left - HALO_PX)
            tile = planes[:, first_row : top + TILE_PX + HALO_PX, first_column : left + TILE_PX + HALO_PX]
            residual = model(tile[None].to(device))[0].to(filled.device)
            residual = residual[:, top - first_row :, left - first_column :][:, :TILE_PX, :TILE_PX]
            changed = (filled[own] + open_[own] * residual).clamp(0, 1)
            painted[own] = torch.where(open_[own] > 0, changed, filled[own])
    return painted
