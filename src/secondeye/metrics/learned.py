"""How alike small pictures look to a network that learnt to see (VGG16), tuned to people's opinions.

What LPIPS and DISTS learnt on top of that network comes with torchmetrics.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.metrics.vgg16 import STAGES, Network, load_network, see

Learned = Callable[[Tensor, Tensor], dict[str, Tensor]]  # crops, truth [N, 3, h, w] -> float64 [N] by score
Lpips = Callable[[Tensor, Tensor], Tensor]  # pictures, truth [N, 3, h, w] in [0, 1] -> float64 [N]

_CHANNELS = (3, *(stage[-1][1] for stage in STAGES))  # of the picture, and of what each stage makes of it
_BATCH = 8  # crops


def load_learned(
    weights: Path | str,  # of VGG16: folder with model.safetensors, or a Hugging Face id
    device: str = "cpu",
) -> Learned:
    """LPIPS (Zhang et al. 2018, version 0.1) and DISTS (Ding et al. 2020) as "lpips" and "dists", on the CPU.

    Both are 0 for equal pictures, more is worse. Crops are in [0, 1], their sides at least 16 px. Refusal
    where the weights can not be had, or are not those of VGG16.
    """
    network = load_network(weights, device)
    lpips = _make_lpips(network, device)
    alpha, beta = ([part.to(device) for part in parts] for parts in _read_dists())

    def compare(crops: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        crops, truth = crops.to(device), truth.to(device)
        both, count = torch.cat([crops, truth]), len(crops)
        soft = [both, *see(network, both, _pool_smoothly)]
        alike = [_likeness(x[:count], x[count:], *w) for x, *w in zip(soft, alpha, beta, strict=True)]
        return lpips(crops, truth).cpu(), 1 - torch.stack(alike).sum(0).cpu()

    def learned(crops: Tensor, truth: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            batches = zip(crops.split(_BATCH), truth.split(_BATCH), strict=True)
            lpips, dists = zip(*(compare(*batch) for batch in batches), strict=True)
        return {"lpips": torch.cat(lpips), "dists": torch.cat(dists)}

    return learned


def load_lpips(
    weights: Path | str,  # as in `load_learned`
    device: str,
) -> Lpips:
    """LPIPS alone, of pictures on `device`; a gradient reaches them. Refusal as in `load_learned`."""
    return _make_lpips(load_network(weights, device), device)


def _make_lpips(network: Network, device: str) -> Lpips:
    heads = [head.to(device) for head in _read_lpips()]

    def lpips(pictures: Tensor, truth: Tensor) -> Tensor:
        count = len(pictures)
        seen = see(network, torch.cat([pictures, truth]), lambda x: F.max_pool2d(x, 2))
        far = [_distance(x[:count], x[count:], head) for x, head in zip(seen, heads, strict=True)]
        return torch.stack(far).sum(0)

    return lpips


def _distance(
    here: Tensor,  # [N, C, h, w]
    there: Tensor,  # [N, C, h, w]
    head: Tensor,  # [1, C, 1, 1]
) -> Tensor:  # float64 [N]
    """LPIPS of one stage: the squared difference of unit vectors, each channel with its weight."""
    difference = (_unit(here) - _unit(there)).square()
    return (difference * head).sum(1).mean((1, 2), dtype=torch.float64)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt()


def _likeness(
    here: Tensor,  # [N, C, h, w]
    there: Tensor,  # [N, C, h, w]
    alpha: Tensor,  # [1, C, 1, 1]
    beta: Tensor,  # [1, C, 1, 1]
) -> Tensor:  # float64 [N]
    """DISTS of one stage: means tell texture, variances structure, each channel with its two weights."""
    mean_here, mean_there = _mean(here), _mean(there)
    off_here, off_there = here - mean_here.float(), there - mean_there.float()
    spread = _mean(off_here.square()) + _mean(off_there.square())
    texture = (2 * mean_here * mean_there + 1e-6) / (mean_here**2 + mean_there**2 + 1e-6)
    structure = (2 * _mean(off_here * off_there) + 1e-6) / (spread + 1e-6)
    return (alpha * texture + beta * structure).sum((1, 2, 3))


def _mean(features: Tensor) -> Tensor:
    return features.mean((2, 3), keepdim=True, dtype=torch.float64)


def _pool_smoothly(features: Tensor) -> Tensor:
    """DISTS' pooling, which does not alias: root of the mean of squares under a Hann window of 3 x 3 px."""
    row = features.new_tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(row, row).expand(features.shape[1], 1, 3, 3)
    squares = F.conv2d(features.square(), kernel, stride=2, padding=1, groups=features.shape[1])
    return (squares + 1e-12).sqrt()


def _read_lpips() -> list[Tensor]:
    """Weights of each stage's channels, [1, C, 1, 1]."""
    values = _read_of_torchmetrics("lpips_models/vgg.pth")
    return [values[f"lin{stage}.model.1.weight"] for stage in range(len(STAGES))]


def _read_dists() -> list[tuple[Tensor, ...]]:
    """Weights of texture and of structure, for the channels of the picture and each stage; all together 1."""
    values = _read_of_torchmetrics("dists_models/weights.pt")
    both = torch.stack([values["alpha"], values["beta"]]).double()
    return [part.split(_CHANNELS, 1) for part in both / both.sum()]


def _read_of_torchmetrics(name: str) -> dict[str, Tensor]:
    found = find_spec("torchmetrics")
    assert found is not None and found.origin is not None
    file = Path(found.origin).parent / "functional" / "image" / name
    values: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return values
