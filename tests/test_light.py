"""The light inpainter: what was seen stays, windows and tiles do not show, any size, weights on disk."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from secondeye.inpaint import Inpainter, Warped, light, make_inpainter
from secondeye.inpaint.fill import fill
from secondeye.inpaint.light import (
    CHANNELS,
    PLANES,
    Light,
    find_flow,
    gather_planes,
    load_light,
    paint,
    pull_back,
    save_light,
)
from secondeye.inpaint.losses import painting_loss
from secondeye.refusal import Refusal
from secondeye.warp import warp
from secondeye.world import two_cards

SMALL = (4, 6, 8)


def loud(channels: tuple[int, int, int] = SMALL, seed: int = 0) -> Light:
    """A network that changes much: its last layer is not zero as at the start of a training."""
    torch.manual_seed(seed)
    model = Light(channels).eval()
    torch.nn.init.normal_(model.tail.weight, std=0.5)
    return model


def cards(**sizes: int) -> Warped:
    shot = two_cards(**sizes)
    return Warped(shot.left, *warp(shot.left, shot.disparity))


@pytest.fixture
def inpainter(tmp_path: Path) -> Inpainter:
    save_light(loud(), tmp_path / "model")
    return make_inpainter("light", tmp_path / "model", "cpu")


def test_size_of_the_network() -> None:
    assert 1_000_000 < sum(weights.numel() for weights in Light(CHANNELS).parameters()) < 3_000_000


def test_what_was_seen_comes_back_to_the_bit(inpainter: Inpainter) -> None:
    warped = cards(frames=3, step_px=1)
    disparity = warped.disparity.clone()
    coverage = warped.coverage * torch.where(disparity == 8, 0.7, 1.0)  # the near card is half there
    painted, _ = inpainter(warped._replace(coverage=coverage), None)
    seen = (coverage == 1).expand_as(painted)
    assert torch.equal(painted[seen], warped.frames[seen])
    filled, _ = fill(warped.frames, coverage, disparity)
    assert ((painted - filled)[~seen].abs() > 0.01).float().mean() > 0.5  # the rest is painted
    assert painted.min() >= 0 and painted.max() <= 1


def test_half_open_pixels_change_half_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, surface = torch.full((1, 3, 24, 32), 0.5), torch.zeros(1, 1, 24, 32)
    coverage = torch.ones(1, 1, 24, 32)
    coverage[..., 10:12], coverage[..., 12:14] = 0.5, 0
    monkeypatch.setattr(Light, "forward", lambda model, planes: torch.full_like(planes[:, :3], 0.2))
    painted, _ = paint(Light(SMALL), Warped(frames, frames, coverage, surface), None)
    assert painted[0, 0, 5, 9:15].tolist() == pytest.approx([0.5, 0.6, 0.6, 0.7, 0.7, 0.5])


def test_flat_surroundings_are_hardly_changed() -> None:
    flat = torch.full((1, PLANES, 32, 32), 0.5)
    rough = torch.rand(flat.shape, generator=torch.Generator().manual_seed(0))
    change = [float(loud()(planes).abs().mean().detach()) for planes in (flat, rough)]
    assert change[0] < 0.05 * change[1]


def test_untrained_network_is_fill() -> None:
    warped = cards()
    filled, _ = fill(warped.frames, warped.coverage, warped.disparity)
    painted, _ = paint(Light(SMALL), warped, None)
    assert torch.equal(painted, filled)


@pytest.mark.parametrize("windows", [(1, 4, 1), (2, 2, 2), (5, 1)])
def test_windows_do_not_show(inpainter: Inpainter, windows: tuple[int, ...]) -> None:
    warped = cards(frames=6, height=48, width=96, step_px=2, seed=2)
    whole, _ = inpainter(warped, None)
    memory, parts, start = None, [], 0
    for frames in windows:
        window = Warped(*(plane[start : start + frames] for plane in warped))
        part, memory = inpainter(window, memory)
        parts.append(part)
        start += frames
    assert torch.equal(torch.cat(parts), whole)


def test_the_frame_before_is_seen(inpainter: Inpainter) -> None:
    warped = cards(frames=2, height=48, width=96)
    second = Warped(*(plane[1:] for plane in warped))
    together, _ = inpainter(warped, None)
    alone, _ = inpainter(second, None)
    assert not torch.equal(together[1:], alone)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 31), (16, 16), (17, 33), (50, 301)])
def test_any_size(inpainter: Inpainter, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(2, 3, *size, generator=generator)
    coverage = (torch.rand(2, 1, *size, generator=generator) > 0.3).float()
    painted, _ = inpainter(Warped(frames, frames * coverage, coverage, torch.zeros(2, 1, *size)), None)
    assert painted.shape == frames.shape and torch.isfinite(painted).all()


def test_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile with its margin gives what the whole picture gives; a smaller margin would not."""
    generator = torch.Generator().manual_seed(3)
    shape = (150, 190)
    frames = torch.rand(1, 3, *shape, generator=generator)
    coverage = (torch.rand(1, 1, *shape, generator=generator) > 0.5).float()
    warped = Warped(frames, frames * coverage, coverage, torch.zeros(1, 1, *shape))
    model = loud()
    whole, _ = paint(model, warped, None)
    monkeypatch.setattr(light, "TILE_PX", 80)
    tiled, _ = paint(model, warped, None)
    torch.testing.assert_close(tiled, whole, atol=1e-4, rtol=0)
    monkeypatch.setattr(light, "HALO_PX", 8)
    seams, _ = paint(model, warped, None)
    assert (seams - whole).abs().max() > 1e-3


def test_tiles_without_holes_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(light, "TILE_PX", 32)
    monkeypatch.setattr(light, "HALO_PX", 8)
    model, seen = loud(), []
    model.register_forward_hook(lambda module, planes, out: seen.append(tuple(planes[0].shape[2:])))
    coverage = torch.ones(1, 1, 96, 160)
    frames = torch.rand(1, 3, 96, 160)
    paint(model, Warped(frames, frames, coverage, torch.zeros(1, 1, 96, 160)), None)
    assert not seen
    coverage[..., 40:44, 70:75] = 0
    paint(model, Warped(frames, frames, coverage, torch.zeros(1, 1, 96, 160)), None)
    assert seen == [(48, 48)]


def test_planes() -> None:
    picture, plane = torch.rand(3, 32, 48), torch.ones(1, 32, 48)
    planes = gather_planes(picture, plane, picture, 4.8 * plane, picture, 48)
    assert planes.shape == (PLANES, 32, 48)
    assert torch.equal(planes[light.WARPED], picture) and torch.equal(planes[light.FILLED], picture)
    assert (planes[7] == 1).all()  # a tenth of the width
    assert (planes[light.BEFORE] == 0).all()


def test_frame_before_is_moved_along_the_flow() -> None:
    previous, flow = torch.rand(1, 3, 6, 9), torch.zeros(1, 2, 6, 9)
    flow[:, 0], flow[:, 1] = 2.0, -1.0  # what lies here was 2 px further right and 1 px higher
    pulled = pull_back(previous, flow)
    torch.testing.assert_close(pulled[..., :3, 1:, :7], previous[..., :5, 2:])
    assert (pulled[:, 3, 1:, :7] == 1).all()
    assert (pulled[:, :, 0] == 0).all() and (pulled[..., 7:] == 0).all()
    assert torch.equal(find_flow(previous[0], previous[0]), torch.zeros(2, 6, 9))


def test_loss_counts_only_what_is_open() -> None:
    truth, open_ = torch.rand(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)
    open_[..., 4:8, 4:8] = 1
    wrong_elsewhere = torch.where(open_ == 1, truth, truth + 1)
    value, parts = painting_loss(truth + 0.1, truth, open_)
    assert float(parts["colour"]) == pytest.approx(0.1)
    assert float(parts["gradient"]) == pytest.approx(0.0, abs=1e-6)
    assert float(parts["coarse"]) == pytest.approx(0.2)
    assert float(value) == pytest.approx(0.2)
    assert float(painting_loss(wrong_elsewhere, truth, open_)[1]["colour"]) == 0
    assert float(painting_loss(truth + 1, truth, 0 * open_)[0]) == 0


def test_weights_survive_the_disk(tmp_path: Path) -> None:
    model, warped = loud(), cards()
    save_light(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    again, _ = load_light(tmp_path, "cpu")(warped, None)
    assert torch.equal(again, paint(model, warped, None)[0])


def refusal(folder: Path | None) -> str:
    with pytest.raises(Refusal) as refused:
        load_light(folder, "cpu")
    return str(refused.value)


def test_folders_without_such_weights_are_refused(tmp_path: Path) -> None:
    assert "name the folder" in refusal(None)
    assert "config.json" in refusal(tmp_path)
    save_light(loud(), tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"

    kept = config.read_text()
    for content in ("{", "[]", json.dumps({"kind": "light", "channels": [4, 6, 9]})):
        config.write_text(content)
        assert str(tmp_path) in refusal(tmp_path)
    config.write_text(kept.replace("light", "depth"))
    assert "'depth'" in refusal(tmp_path)
    config.write_text(kept)
    weights.write_bytes(b"no weights")
    assert "train it again" in refusal(tmp_path)
    weights.unlink()
    assert "model.safetensors" in refusal(tmp_path)


def test_wrong_arrays_are_refused(inpainter: Inpainter) -> None:
    warped = cards()
    nan: Tensor = warped.disparity * float("nan")
    with pytest.raises(ValueError, match="disparity"):
        inpainter(warped._replace(disparity=nan), None)
