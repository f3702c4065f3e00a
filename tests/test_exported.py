import pickle
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import a_film, a_shift
from exported_networks import EXAMPLE, WRITERS, Formula, program_of, write_onnx, write_pt2
from small_dataset import write_rows
from torch import Tensor

from secondeye.dataset.clip_files import write_frames
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import Clip, ClipDisparity, Correction, Film
from secondeye.matching.exported_matcher import make_exported_matcher
from secondeye.matching.match_clip import match_clip, network_identity
from secondeye.matching.sliding_windows import blend, fit_size, pad_frames, window_starts
from secondeye.params import DatasetParams, Exported, Match
from secondeye.stages import match as stage
from secondeye.system.errors import UserError

SETTINGS = Exported(path="", sign=1, scale=1.0, multiple=16, min_size=32, window_frames=2, overlap_frames=1)


def some_clip(frames: int = 5, height: int = 33, width: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(frames, 3, height, width, generator=generator) for _ in range(2))  # type: ignore[return-value]


def weighted(left: Tensor, right: Tensor) -> Tensor:
    """Return values that identify frame, view, channel, row and column."""
    return 2 * left[:, :1] + 3 * left[:, 2:] - right[:, 1:2]


@pytest.fixture(scope="module")
def formulas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one formula in both file formats."""
    folder = tmp_path_factory.mktemp("formulas")
    program = program_of(Formula(weighted))
    for kind, write in WRITERS.items():
        write(folder / f"formula.{kind}", program)
    return folder


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(("frames", "window", "overlap"), [(5, 2, 1), (5, 4, 0), (2, 6, 3), (1, 1, 0)])
def test_windows_cover_every_frame_in_order(
    formulas: Path, kind: str, frames: int, window: int, overlap: int
) -> None:
    left, right = some_clip(frames)
    settings = replace(
        SETTINGS,
        path=str(formulas / f"formula.{kind}"),
        sign=-1,
        scale=0.5,
        window_frames=window,
        overlap_frames=overlap,
    )
    answer = make_exported_matcher(settings)(left, right)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, -0.5 * weighted(left, right), rtol=0, atol=1e-6)


def test_the_clips_of_a_process_share_one_network_until_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, load = list[Path](), torch.export.load
    monkeypatch.setattr(torch.export, "load", lambda path: loaded.append(path) or load(path))
    path, (left, right) = tmp_path / "network.pt2", some_clip(2)
    settings = Match(
        matcher="exported",
        max_disparity_percent=5,
        tolerance_px=1,
        exported=replace(SETTINGS, path=str(path)),
    )
    for times, formula in enumerate(
        (weighted, lambda left, right: left[:, :1] * 0 + 7 + right[:, :1] * 0), 1
    ):
        write_pt2(path, program_of(Formula(formula)))
        disparities = [match_clip(settings, left, right)[0] for _ in range(2)]
        assert len(loaded) == times and torch.equal(*disparities)
    assert (disparities[0] == 7).all()


def test_outputs_without_a_channel_dimension_are_accepted(tmp_path: Path) -> None:
    path = write_pt2(tmp_path / "n.pt2", program_of(Formula(lambda left, right: (left - right)[:, 0])))
    left, right = some_clip()
    answer = make_exported_matcher(replace(SETTINGS, path=str(path)))(left, right)
    torch.testing.assert_close(answer, (left - right)[:, :1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_network_of_fixed_size_is_padded_or_rejected(tmp_path: Path, kind: str) -> None:
    program = program_of(Formula(lambda left, right: (left - right)[:, :1]), any_size=False)
    path = WRITERS[kind](tmp_path / f"n.{kind}", program)
    matcher = make_exported_matcher(replace(SETTINGS, path=str(path), multiple=1, min_size=1))
    left, right = some_clip(3, 30, 50)
    torch.testing.assert_close(matcher(left, right), (left - right)[:, :1], rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="64x32 px, smaller than a clip of 50x33"):
        matcher(*some_clip(3, 33, 50))
    with pytest.raises(UserError, match="expects 2 frames"):
        make_exported_matcher(replace(SETTINGS, path=str(path), window_frames=3))


FAULTS = {
    "three inputs": (lambda left, right, more: left[:, :1] + more[:, :1], 3, "3 inputs and 1 outputs"),
    "one input": (lambda left: left[:, :1], 1, "1 inputs and 1 outputs"),
    "two outputs": (lambda left, right: (left[:, :1], right[:, :1]), 2, "2 inputs and 2 outputs"),
    "half size": (lambda left, right: (left - right)[:, :1, ::2, ::2], 2, r"must be \[T, 1, H, W\]"),
    "three channels": (lambda left, right: left - right, 2, r"must be \[T, 1, H, W\]"),
    "whole numbers": (lambda left, right: (left > right)[:, :1].int(), 2, "must be finite floats"),
    "not a number": (lambda left, right: (left - right)[:, :1] / 0, 2, "must be finite floats"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_unsuitable_network_is_rejected(tmp_path: Path, fault: str) -> None:
    formula, inputs, message = FAULTS[fault]
    program = program_of(Formula(formula), (EXAMPLE[0],) * inputs)
    settings = replace(SETTINGS, path=str(write_pt2(tmp_path / "n.pt2", program)))
    with pytest.raises(UserError, match=message):
        make_exported_matcher(settings)(*some_clip(2))


class Scaled(torch.nn.Module):
    def forward(self, left: Tensor, right: Tensor, rounds: int) -> Tensor:
        return (left - right)[:, :1] * rounds


def test_a_network_with_a_scalar_input_is_rejected(tmp_path: Path) -> None:
    program = torch.export.export(Scaled(), (EXAMPLE[0], EXAMPLE[0], 12))
    path = write_pt2(tmp_path / "n.pt2", program)
    with pytest.raises(UserError, match="3 inputs and 1 outputs"):
        make_exported_matcher(replace(SETTINGS, path=str(path)))


def test_an_invalid_file_is_rejected(tmp_path: Path) -> None:
    def opened(name: str, content: bytes | None) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        make_exported_matcher(replace(SETTINGS, path=str(tmp_path / name) if name else ""))

    for name, content, message in [
        ("", None, "must be set"),
        ("missing.pt2", None, "no such file"),
        ("network.pth", b"", "must end in .pt2 or .onnx"),
        ("junk.pt2", b"junk", "not a plain file of torch.export.save"),
        ("junk.onnx", b"junk", "cannot be loaded"),
    ]:
        with pytest.raises(UserError, match=message):
            opened(name, content)


class TouchOnLoad:
    """An object that creates a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return _leave, (str(self.place),)


def _leave(place: str) -> None:
    Path(place).touch()


@pytest.mark.parametrize("hidden", ["data/sample_inputs/model.pt", "data/weights/model.pt", "extra/code.py"])
def test_a_file_with_more_than_tensors_is_rejected(formulas: Path, tmp_path: Path, hidden: str) -> None:
    trap = tmp_path / "sprung"
    with (
        zipfile.ZipFile(formulas / "formula.pt2") as good,
        zipfile.ZipFile(tmp_path / "trap.pt2", "w") as bad,
    ):
        for name in good.namelist():
            if not name.endswith(hidden):
                bad.writestr(name, good.read(name))
        bad.writestr(f"formula/{hidden}", pickle.dumps(TouchOnLoad(trap), protocol=2))
    with pytest.raises(UserError, match="plain"):
        make_exported_matcher(replace(SETTINGS, path=str(tmp_path / "trap.pt2")))
    assert not trap.exists()


def test_network_identity_depends_on_content(formulas: Path, tmp_path: Path) -> None:
    match = Match(
        matcher="exported",
        max_disparity_percent=18.0,
        tolerance_px=1.0,
        exported=replace(SETTINGS, path=str(formulas / "formula.pt2")),
    )
    copy = shutil.copyfile(formulas / "formula.pt2", tmp_path / "copy.pt2")
    copied = replace(match, exported=replace(SETTINGS, path=str(copy)))
    assert network_identity(match) == network_identity(copied)
    write_pt2(tmp_path / "copy.pt2", program_of(Formula(lambda left, right: (right - left)[:, :1])))
    assert network_identity(match) != network_identity(copied)
    onnx = replace(match, exported=replace(SETTINGS, path=str(formulas / "formula.onnx")))
    assert network_identity(onnx)[1].startswith("onnxruntime ")
    assert network_identity(replace(match, matcher="video")) == []
    with pytest.raises(UserError, match="no such file"):
        network_identity(replace(match, exported=replace(SETTINGS, path="missing.onnx")))


def test_the_output_is_kept_where_the_views_disagree(formulas: Path) -> None:
    left, right = some_clip(2, 32, 48)
    match = Match(
        matcher="exported",
        max_disparity_percent=18.0,
        tolerance_px=0.01,
        exported=replace(SETTINGS, path=str(formulas / "formula.pt2")),
    )
    disparity, consistent = match_clip(match, left, right)
    torch.testing.assert_close(disparity, weighted(left, right), rtol=0, atol=1e-6)
    assert not consistent.all()


def test_external_weights_are_rejected(tmp_path: Path) -> None:
    import onnx

    class Weighted(torch.nn.Linear):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(left - right)[:, :1]

    program = program_of(Weighted(64, 64), any_size=False)
    path = write_onnx(tmp_path / "n.onnx", program)
    make_exported_matcher(replace(SETTINGS, path=str(path)))(*some_clip(2, 32, 64))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="n.data", size_threshold=0)
    with pytest.raises(UserError, match="cannot be loaded"):
        make_exported_matcher(replace(SETTINGS, path=str(path)))


@pytest.mark.parametrize(
    ("frames", "window", "overlap", "starts"),
    [(5, 5, 3, [0]), (6, 5, 3, [0, 1]), (9, 5, 3, [0, 2, 4]), (10, 4, 0, [0, 4, 6]), (1, 1, 0, [0])],
)
def test_windows_by_hand(frames: int, window: int, overlap: int, starts: list[int]) -> None:
    assert window_starts(frames, window, overlap) == starts


def test_windows_are_blended_linearly() -> None:
    answers: Iterator[Tensor] = iter([torch.zeros(4, 1), torch.full((4, 1), 6.0)])
    # frames 2 and 3 are shared: 2 and 1 parts of the first window, 1 and 2 parts of the second
    assert blend(answers, [0, 2], 6, 2).flatten().tolist() == [0, 0, 2, 4, 6, 6]
    same = blend((torch.full((4, 2, 3), 0.1) for _ in range(3)), [0, 3, 5], 9, 1)
    assert torch.equal(same, torch.full((9, 2, 3), 0.1))


def test_fit_size_and_padding_by_hand() -> None:
    assert fit_size(33, 50, (None, None), multiple=32, min_size=128) == (128, 128)
    assert fit_size(256, 441, (None, None), multiple=32, min_size=100) == (256, 448)
    assert fit_size(33, 50, (40, None), multiple=32, min_size=1) == (40, 64)
    frames, _ = some_clip(2, 3, 4)
    padded = pad_frames(frames, 5, 6, at_least=3)
    assert padded.shape == (3, 3, 5, 6) and torch.equal(padded[:2, :, :3, :4], frames)
    assert torch.equal(padded[2], padded[1]) and torch.equal(padded[..., 5], padded[..., 3])


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """The folders of split and shift with one clip."""
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    clip = Clip("0123456789abcdef", "k", "f", 0, 0, 3, 0.0, 1, 32, 64, "")
    dataset = write_rows(
        tmp_path / "data", {Film: [a_film("f")], Clip: [clip], Correction: [a_shift(clip.id, shift_px=0)]}
    )
    for kind, view in zip(("left", "right"), some_clip(3, 32, 64), strict=True):
        write_frames(dataset.file("split", clip.id, kind), view)
    return dataset


def test_a_wrong_scale_shows_in_impossible_disparities(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "network.pt2"
    write_pt2(path, program_of(Formula(lambda left, right: (left[:, :1] > 0.9).float())))
    for scale, reasons in ((10.0, []), (100.0, ["impossible disparity"])):
        match = Match(
            matcher="exported",
            max_disparity_percent=18.0,
            tolerance_px=1.0,
            exported=replace(SETTINGS, path=str(path), scale=scale),
        )
        stage.run(dataset.root, match=match, dataset=DatasetParams(max_bad_fraction=1.0))
        failed = Dataset(dataset.root).failed("match")
        assert [row.reason for row in failed] == reasons
    assert "check match.exported.scale" in failed[0].detail


def test_the_stage_rebuilds_for_another_network_and_fails_early_without_one(
    dataset: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "network.pt2"
    match = Match(
        matcher="exported",
        max_disparity_percent=18.0,
        tolerance_px=1.0,
        exported=replace(SETTINGS, path=str(path)),
    )

    def matched() -> Tensor:
        stage.run(dataset.root, match=match, dataset=DatasetParams(max_bad_fraction=0.0))
        built = Dataset(dataset.root)
        return built.disparity(built.join(Correction, ClipDisparity)[0])

    with pytest.raises(UserError, match="no such file"):
        matched()
    for px in (2, 5):
        write_pt2(path, program_of(Formula(lambda left, right, px=px: left[:, :1] * 0 + px)))
        assert (matched() == px).all()
