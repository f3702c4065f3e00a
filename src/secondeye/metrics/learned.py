"""LPIPS and DISTS: learned perceptual similarity of image crops, on VGG16 features.

The weights that both fitted on top of VGG16 ship with torchmetrics. Its own modules (1.9.0) are not used:
they take VGG16 only from torchvision, which downloads it, and accept no other. Its DISTS also loads VGG16
again for every batch, and sums in float32, so that equal crops score -1e-7 instead of 0.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.metrics.vgg16 import STAGES, Vgg16, extract_features, load_vgg16

# crops, truth [N, 3, h, w] -> metric name -> float64 [N]
LearnedMetrics = Callable[[Tensor, Tensor], dict[str, Tensor]]
Lpips = Callable[[Tensor, Tensor], Tensor]  # images, truth [N, 3, h, w] in [0, 1] -> float64 [N]

_CHANNELS = (3, *(stage[-1][1] for stage in STAGES))  # of the input and of each stage
_BATCH = 8  # crops


def load_learned_metrics(
    weights: Path | str,  # of VGG16: folder with model.safetensors, or a Hugging Face id
    device: str = "cpu",
) -> LearnedMetrics:
    """Load LPIPS (Zhang et al. 2018, version 0.1) and DISTS (Ding et al. 2020) as "lpips" and "dists".

    Both are 0 for equal crops and grow with the difference; scores are returned on the CPU. Crops must be in
    [0, 1] and at least 16 px on each side. Raises UserError if the weights cannot be loaded or are not
    VGG16's.
    """
    vgg16 = load_vgg16(weights, device)
    lpips = _make_lpips(vgg16, device)
    alpha, beta = ([part.to(device) for part in parts] for parts in _dists_weights())

    def compare(crops: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        crops, truth = crops.to(device), truth.to(device)
        both, count = torch.cat([crops, truth]), len(crops)
        stages = [both, *extract_features(vgg16, both, _l2_pool)]
        weighted = zip(stages, alpha, beta, strict=True)
        similarities = [_stage_similarity(x[:count], x[count:], *w) for x, *w in weighted]
        return lpips(crops, truth).cpu(), 1 - torch.stack(similarities).sum(0).cpu()

    def learned(crops: Tensor, truth: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            batches = zip(crops.split(_BATCH), truth.split(_BATCH), strict=True)
            lpips, dists = zip(*(compare(*batch) for batch in batches), strict=True)
        return {"lpips": torch.cat(lpips), "dists": torch.cat(dists)}

    return learned


def load_lpips(
    weights: Path | str,  # of VGG16, see `load_learned_metrics`
    device: str,
) -> Lpips:
    """Load LPIPS, differentiable, for images on `device`. Raises UserError like `load_learned_metrics`."""
    return _make_lpips(load_vgg16(weights, device), device)


def _make_lpips(vgg16: Vgg16, device: str) -> Lpips:
    heads = [head.to(device) for head in _lpips_weights()]

    def lpips(images: Tensor, truth: Tensor) -> Tensor:
        count = len(images)
        features = extract_features(vgg16, torch.cat([images, truth]), lambda x: F.max_pool2d(x, 2))
        weighted = zip(features, heads, strict=True)
        return torch.stack([_stage_distance(x[:count], x[count:], head) for x, head in weighted]).sum(0)

    return lpips


def _stage_distance(
    first: Tensor,  # [N, C, h, w]
    second: Tensor,  # [N, C, h, w]
    head: Tensor,  # [1, C, 1, 1]
) -> Tensor:  # float64 [N]
    """Return LPIPS of one stage: the weighted squared difference of channel-normalised features."""
    difference = (_unit(first) - _unit(second)).square()
    return (difference * head).sum(1).mean((1, 2), dtype=torch.float64)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt()


def _stage_similarity(
    first: Tensor,  # [N, C, h, w]
    second: Tensor,  # [N, C, h, w]
    alpha: Tensor,  # [1, C, 1, 1]
    beta: Tensor,  # [1, C, 1, 1]
) -> Tensor:  # float64 [N]
    """Return DISTS of one stage: weighted similarity of means (texture) and covariances (structure)."""
    first_mean, second_mean = _mean(first), _mean(second)
    first_deviation, second_deviation = first - first_mean.float(), second - second_mean.float()
    variances = _mean(first_deviation.square()) + _mean(second_deviation.square())
    texture = (2 * first_mean * second_mean + 1e-6) / (first_mean**2 + second_mean**2 + 1e-6)
    structure = (2 * _mean(first_deviation * second_deviation) + 1e-6) / (variances + 1e-6)
    return (alpha * texture + beta * structure).sum((1, 2, 3))


def _mean(features: Tensor) -> Tensor:
    return features.mean((2, 3), keepdim=True, dtype=torch.float64)


def _l2_pool(features: Tensor) -> Tensor:
    """Pool as DISTS does, without aliasing: L2 pooling with a 3 x 3 Hann window."""
    row = features.new_tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(row, row).expand(features.shape[1], 1, 3, 3)
    squares = F.conv2d(features.square(), kernel, stride=2, padding=1, groups=features.shape[1])
    return (squares + 1e-12).sqrt()


def _lpips_weights() -> list[Tensor]:
    """Return the channel weights of each stage, [1, C, 1, 1]."""
    values = _load_from_torchmetrics("lpips_models/vgg.pth")
    return [values[f"lin{stage}.model.1.weight"] for stage in range(len(STAGES))]


def _dists_weights() -> list[tuple[Tensor, ...]]:
    """Return the texture and the structure weights of the input and each stage; together they sum to 1."""
    values = _load_from_torchmetrics("dists_models/weights.pt")
    both = torch.stack([values["alpha"], values["beta"]]).double()
    return [part.split(_CHANNELS, 1) for part in both / both.sum()]


def _load_from_torchmetrics(name: str) -> dict[str, Tensor]:
    found = find_spec("torchmetrics")
    assert found is not None and found.origin is not None
    file = Path(found.origin).parent / "functional" / "image" / name
    values: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return values
