"""Depth networks in files: what docs/depth.md promises about them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_networks import WRITERS
from torch import Tensor

from secondeye.depth.estimators import find_weights, make_depth_estimator
from secondeye.depth.metres import MIN_DEPTH_M
from secondeye.imaging.arrays import resize
from secondeye.system.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


class Formula(torch.nn.Module):
    def __init__(self, formula: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, images: Tensor) -> Any:
        return self.formula(images)


def mean(images: Tensor) -> Tensor:
    return images.mean(1, keepdim=True)


def write(
    folder: Path,
    formula: Callable[[Tensor], Any] = mean,
    kind: str = "pt2",
    *,
    size: tuple[int, int] | None = None,  # None: any
    **said: Any,
) -> Path:
    sides = {2: torch.export.Dim("h", min=3, max=4096), 3: torch.export.Dim("w", min=3, max=4096)}
    example = (torch.zeros(1, 3, *(size or (32, 64))),)
    program = torch.export.export(Formula(formula), example, dynamic_shapes=None if size else ((sides),))
    path = WRITERS[kind](folder / f"network.{kind}", program)
    path.with_name(f"{path.name}.json").write_text(json.dumps(said))
    return path


def estimate(path: Path, frame: Tensor) -> Tensor:
    (found,) = make_depth_estimator(f"exported:{path}", None, "cpu")([frame])
    return found.depth


FRAME = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3)) * 0.9 + 0.05


@pytest.mark.parametrize(
    ("kind", "said", "expected"),
    [
        ("pt2", {"larger_is": "nearer"}, lambda value: value),
        ("pt2", {"larger_is": "farther"}, lambda value: -value),
        ("pt2", {"larger_is": "farther", "metric": True}, lambda value: 1 / value.clamp_min(MIN_DEPTH_M)),
        ("onnx", {"larger_is": "farther", "metric": True}, lambda value: 1 / value.clamp_min(MIN_DEPTH_M)),
    ],
)
def test_larger_is_nearer_in_the_end(
    tmp_path: Path, kind: str, said: dict[str, Any], expected: Callable[[Tensor], Tensor]
) -> None:
    path = write(tmp_path, kind=kind, short_side=32, multiple=16, **said)
    torch.testing.assert_close(estimate(path, FRAME), expected(mean(resize(FRAME, 32, 48))))


def test_colours_are_normalised_as_the_file_says(tmp_path: Path) -> None:
    path = write(
        tmp_path, larger_is="nearer", short_side=64, multiple=1, mean=[0.1, 0.2, 0.3], std=[0.5, 1, 2]
    )
    by_hand = torch.stack(
        [(FRAME[:, 0] - 0.1) / 0.5, FRAME[:, 1] - 0.2, (FRAME[:, 2] - 0.3) / 2], dim=1
    ).mean(1, keepdim=True)
    torch.testing.assert_close(estimate(path, FRAME), by_hand)


@pytest.mark.parametrize(
    ("frame", "short_side", "multiple", "size"),
    [((64, 96), 32, 16, (32, 48)), ((80, 50), 30, 10, (50, 30)), ((16, 16), 32, 8, (16, 16))],
)
def test_frames_have_the_short_side_and_the_multiple_asked_for(
    tmp_path: Path, frame: tuple[int, int], short_side: int, multiple: int, size: tuple[int, int]
) -> None:
    path = write(tmp_path, larger_is="nearer", short_side=short_side, multiple=multiple)
    assert estimate(path, torch.rand(1, 3, *frame)).shape[2:] == size


def test_a_network_of_a_fixed_size_gets_it_and_the_map_the_frames_aspect(tmp_path: Path) -> None:
    path = write(tmp_path, size=(20, 20), larger_is="nearer")
    assert estimate(path, FRAME).shape[2:] == (16, 24)  # as many pixels as 20 x 20


def test_outputs_without_a_channel_and_of_another_size_are_accepted(tmp_path: Path) -> None:
    path = write(tmp_path, lambda images: images.mean(1)[:, ::2, ::2], larger_is="nearer", short_side=64)
    torch.testing.assert_close(estimate(path, FRAME), mean(FRAME)[..., ::2, ::2])


def test_onnx_metadata_say_what_a_file_beside_it_would(tmp_path: Path) -> None:
    import onnx

    path = write(tmp_path, kind="onnx")
    path.with_name(f"{path.name}.json").unlink()
    with pytest.raises(UserError, match=r"does not say whether larger values are nearer"):
        make_depth_estimator(f"exported:{path}", None, "cpu")
    model = onnx.load(path)
    said = {
        "larger_is": "farther",
        "std": "[0.5, 0.5, 0.5]",
        "short_side": "64",
        "licence": "MIT",
        "author": "x",
    }
    onnx.helper.set_model_props(model, said)
    onnx.save(model, path)
    torch.testing.assert_close(estimate(path, FRAME), -2 * mean(FRAME))
    before = find_weights(f"exported:{path}")
    assert before is not None and before.licence == "MIT"
    path.with_name(f"{path.name}.json").write_text('{"larger_is": "nearer"}')  # goes first
    torch.testing.assert_close(estimate(path, FRAME), 2 * mean(FRAME))
    after = find_weights(f"exported:{path}")
    assert after is not None and after.hash != before.hash
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"network.onnx: not an ONNX file, or damaged"):
        find_weights(f"exported:{path}")


def test_weights_are_identified_without_loading_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any, **options: Any) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("onnxruntime.InferenceSession", refuse)
    monkeypatch.setattr(torch.export, "load", refuse)
    for kind in ("onnx", "pt2"):
        found = find_weights(f"exported:{write(tmp_path, kind=kind, larger_is='nearer', licence='MIT')}")
        assert found is not None and found.licence == "MIT"


NEARER = {"larger_is": "nearer"}
FAULTS: dict[str, tuple[Callable[[Tensor], Any], dict[str, Any], str]] = {
    "no orientation": (mean, {}, "does not say whether larger values are nearer"),
    "another orientation": (mean, {"larger_is": "up"}, "larger_is must be"),
    "metres that are nearer": (mean, {**NEARER, "metric": True}, "metric depth in metres"),
    "a misspelt name": (mean, {**NEARER, "multipel": 3}, "unknown: multipel"),
    "two means": (mean, {**NEARER, "mean": [0, 0]}, "mean must be three numbers"),
    "no spread": (mean, {**NEARER, "std": [0, 1, 1]}, "std must be above 0"),
    "half a multiple": (mean, {**NEARER, "multiple": 0.5}, "multiple must be a whole number"),
    "a text for a number": (mean, {**NEARER, "short_side": "384"}, "short_side must be a whole number"),
    "three channels": (lambda images: images, NEARER, r"must be \[1, 1, h, w\] or \[1, h, w\]"),
    "two outputs": (lambda images: (mean(images), mean(images)), NEARER, "1 inputs and 2 outputs"),
    "not a number": (lambda images: mean(images) / 0 * 0, NEARER, "returned NaN or inf"),
    "whole numbers": (lambda images: (mean(images) > 0.5).int(), NEARER, "output must be floats"),
    "no mean": (mean, {**NEARER, "mean": None}, "mean must be three numbers"),
    "a huge side": (mean, {**NEARER, "short_side": 10**9}, "short_side must be a whole number, 1 to 8192"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_unsuitable_network_is_one_line(tmp_path: Path, fault: str) -> None:
    formula, said, message = FAULTS[fault]
    path = write(tmp_path, formula, **said)
    with pytest.raises(UserError, match=message) as refusal:
        estimate(path, FRAME)
    assert "\n" not in str(refusal.value) and "network.pt2" in str(refusal.value)


def test_an_unsuitable_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "network.onnx").write_bytes(b"junk")
    for name, message in [
        ("missing.onnx", "no such file"),
        ("network.pth", "must end in .onnx or .pt2"),
        ("network.onnx", "cannot be loaded"),
    ]:
        with pytest.raises(UserError, match=message):
            make_depth_estimator(f"exported:{tmp_path / name}", None, "cpu")
    path = write(tmp_path, size=(32, 64), larger_is="nearer")
    path.with_name("network.pt2.json").write_text("{")
    with pytest.raises(UserError, match=r"network.pt2.json: Expecting"):
        make_depth_estimator(f"exported:{path}", None, "cpu")


def test_a_real_network_puts_the_floor_in_front_of_the_wall(models: Path, tmp_path: Path) -> None:
    """FastDepth (NYU Depth v2): metres, larger is farther."""
    source = models / "fastdepth" / "fast_depth_dequantised_nchw.onnx"
    if not source.is_file():
        pytest.skip(f"{source}: no such file")
    path = tmp_path / "fast_depth.onnx"
    path.symlink_to(source)
    said = {"larger_is": "farther", "metric": True, "short_side": 224, "licence": "MIT"}
    path.with_name("fast_depth.onnx.json").write_text(json.dumps(said))
    rows, columns = np.indices((240, 320), dtype=np.float32)
    room = np.full((240, 320, 3), 0.75, np.float32)  # a wall, and below it a floor of boards
    floor = rows > 130
    boards = (np.floor((columns - 160) / (rows - 125).clip(1) * 3) % 2)[..., None]
    room[floor] = (np.array([0.45, 0.3, 0.2], np.float32) + 0.15 * boards)[floor]
    depth = estimate(path, torch.from_numpy(room.transpose(2, 0, 1)[None].copy()))
    assert depth.shape == (1, 1, 224, 288)
    bottom, top = depth[0, 0, -30:].mean(), depth[0, 0, 60:110].mean()
    assert bottom > 1.2 * top
