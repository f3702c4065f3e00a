from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from secondeye.metrics.learned import LearnedMetrics, load_learned_metrics
from secondeye.system.errors import UserError


@pytest.fixture(scope="module")
def learned(vgg16_folder: Path) -> LearnedMetrics:
    return load_learned_metrics(vgg16_folder)


def pair(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    truth = torch.rand(count, 3, height, width, generator=generator)
    return (truth + 0.2 * torch.randn(truth.shape, generator=generator)).clamp(0, 1), truth


def test_equal_crops_have_zero_distance(learned: LearnedMetrics) -> None:
    _, truth = pair(2, 32, 40)
    found = learned(truth, truth)
    assert found.keys() == {"lpips", "dists"}
    for distance in found.values():
        torch.testing.assert_close(distance, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_lpips_matches_torchmetrics(
    learned: LearnedMetrics, vgg16_features: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchmetrics.functional.image import lpips

    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda *_: vgg16_features)
    network = lpips._LPIPS(net="vgg")
    for crops, truth in (pair(2, 48, 48), pair(2, 35, 50)):
        expected = network(crops, truth, normalize=True).squeeze().double()
        assert expected.gt(0.001).all()
        torch.testing.assert_close(learned(crops, truth)["lpips"], expected, rtol=1e-4, atol=0)


def test_dists_matches_torchmetrics(
    learned: LearnedMetrics, vgg16_features: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchmetrics.functional.image import dists

    monkeypatch.setattr(dists, "_TORCHVISION_AVAILABLE", True)
    monkeypatch.setattr(dists, "VGG16_Weights", SimpleNamespace(DEFAULT=None), raising=False)
    monkeypatch.setattr(
        dists, "vgg16", lambda weights: SimpleNamespace(features=vgg16_features), raising=False
    )
    network = dists.DISTSNetwork()
    for crops, truth in (pair(2, 48, 48), pair(2, 35, 50)):
        expected = network(crops, truth).double()
        assert expected.gt(0.001).all()
        torch.testing.assert_close(learned(crops, truth)["dists"], expected, rtol=1e-3, atol=1e-6)


def test_distance_grows_with_the_error(learned: LearnedMetrics) -> None:
    crops, truth = pair(1, 32, 32)
    near, far = learned(truth.lerp(crops, 0.3), truth), learned(crops, truth)
    assert all(0 < near[name] < far[name] for name in ("lpips", "dists"))


def test_batches_keep_their_order_and_an_empty_batch_is_empty(learned: LearnedMetrics) -> None:
    crops, truth = pair(11, 16, 16)
    together, last = learned(crops, truth), learned(crops[10:], truth[10:])
    none = learned(crops[:0], truth[:0])
    for name in ("lpips", "dists"):
        assert together[name].shape == (11,) and none[name].shape == (0,)
        torch.testing.assert_close(together[name][10:], last[name], rtol=1e-4, atol=1e-7)


def test_a_folder_without_weights_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        load_learned_metrics(tmp_path)


def test_an_invalid_safetensors_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        load_learned_metrics(tmp_path)


def test_weights_of_another_network_are_rejected(vgg16_folder: Path, tmp_path: Path) -> None:
    weights = load_file(vgg16_folder / "model.safetensors")
    weights["features.10.weight"] = torch.zeros(256, 128, 1, 1)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"features\.10\.weight must be \[256, 128, 3, 3\], is \["):
        load_learned_metrics(tmp_path)
    del weights["features.10.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"features\.10\.weight must be .* is missing"):
        load_learned_metrics(tmp_path)


@pytest.mark.parametrize(
    ("weights", "line"),
    [("timm/vgg16.not_here", "hf download"), ("/no/such/folder", "neither a folder nor a name")],
)
def test_unavailable_weights_are_rejected_in_one_line(weights: str, line: str) -> None:
    with pytest.raises(UserError, match=line) as error:
        load_learned_metrics(weights)
    assert weights in str(error.value) and "\n" not in str(error.value)
