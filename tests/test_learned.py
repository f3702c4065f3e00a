from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from secondeye.metrics.learned import Learned, load_learned
from secondeye.system.errors import UserError


@pytest.fixture(scope="module")
def learned(vgg16_folder: Path) -> Learned:
    return load_learned(vgg16_folder)


def pair(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    truth = torch.rand(count, 3, height, width, generator=generator)
    return (truth + 0.2 * torch.randn(truth.shape, generator=generator)).clamp(0, 1), truth


def test_equal_crops_are_no_distance_apart(learned: Learned) -> None:
    _, truth = pair(2, 32, 40)
    found = learned(truth, truth)
    assert found.keys() == {"lpips", "dists"}
    for distance in found.values():
        torch.testing.assert_close(distance, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_lpips_is_that_of_torchmetrics(
    learned: Learned, vgg16_features: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchmetrics.functional.image import lpips

    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda *_: vgg16_features)
    network = lpips._LPIPS(net="vgg")
    for crops, truth in (pair(2, 48, 48), pair(2, 35, 50)):
        expected = network(crops, truth, normalize=True).squeeze().double()
        assert expected.gt(0.001).all()
        torch.testing.assert_close(learned(crops, truth)["lpips"], expected, rtol=1e-4, atol=0)


def test_dists_is_that_of_torchmetrics(
    learned: Learned, vgg16_features: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchmetrics.functional.image import dists

    monkeypatch.setattr(dists, "_TORCHVISION_AVAILABLE", True)
    monkeypatch.setattr(dists, "VGG16_Weights", SimpleNamespace(DEFAULT=None), raising=False)
    monkeypatch.setattr(
        dists, "vgg16", lambda weights: SimpleNamespace(features=vgg16_features), raising=False
    )
    network = dists.DISTSNetwork(load_weights=False)  # it would look for the GPU they were saved from
    saved = torch.load(dists._PATH_WEIGHT_DISTS, map_location="cpu", weights_only=True)
    network.alpha.data, network.beta.data = saved["alpha"], saved["beta"]
    for crops, truth in (pair(2, 48, 48), pair(2, 35, 50)):
        expected = network(crops, truth).double()
        assert expected.gt(0.001).all()
        torch.testing.assert_close(learned(crops, truth)["dists"], expected, rtol=1e-3, atol=1e-6)


def test_the_further_from_the_truth_the_more(learned: Learned) -> None:
    crops, truth = pair(1, 32, 32)
    near, far = learned(truth.lerp(crops, 0.3), truth), learned(crops, truth)
    assert all(0 < near[name] < far[name] for name in ("lpips", "dists"))


def test_many_crops_score_in_their_order_and_none_is_none(learned: Learned) -> None:
    crops, truth = pair(11, 16, 16)
    together, last = learned(crops, truth), learned(crops[10:], truth[10:])
    none = learned(crops[:0], truth[:0])
    for name in ("lpips", "dists"):
        assert together[name].shape == (11,) and none[name].shape == (0,)
        torch.testing.assert_close(together[name][10:], last[name], rtol=1e-4, atol=1e-7)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        load_learned(tmp_path)


def test_what_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no such thing")
    with pytest.raises(UserError, match="can not be read"):
        load_learned(tmp_path)


def test_weights_of_another_network_are_refused(vgg16_folder: Path, tmp_path: Path) -> None:
    weights = load_file(vgg16_folder / "model.safetensors")
    weights["features.10.weight"] = torch.zeros(256, 128, 1, 1)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"features\.10\.weight must be \[256, 128, 3, 3\], is \["):
        load_learned(tmp_path)
    del weights["features.10.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"features\.10\.weight must be .* is missing"):
        load_learned(tmp_path)


@pytest.mark.parametrize("weights", ["timm/vgg16.not_here", "/no/such/folder"])
def test_weights_that_can_not_be_had_are_refused_in_one_line(weights: str) -> None:
    with pytest.raises(UserError, match="hf download") as refusal:
        load_learned(weights)
    assert weights in str(refusal.value) and "\n" not in str(refusal.value)
