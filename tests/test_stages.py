"""All stages in sequence, without DVC, on small films whose results are known."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import coarse_cards

from secondeye.dataset.clip_files import (
    read_disparity,
    read_occlusion,
)
from secondeye.dataset.clip_paths import clip_file
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import (
    AcceptedClip,
    Clip,
    ClipQuality,
    Correction,
    RejectedClip,
    SyntheticShot,
)
from secondeye.params import Params, Synthetic, load_params
from secondeye.stages import filter, match, quality, shift, splat, split, synthetic, validate
from secondeye.synthetic import Shot
from secondeye.system.errors import UserError
from secondeye.video.write import write_film

PROJECT = Path(__file__).parent.parent
HEIGHT, WIDTH, NEAR, FAR = 96, 192, 16, 4


@pytest.fixture
def params(monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    params = load_params(PROJECT / "params.yaml")
    split = replace(params.split, height=HEIGHT, width=WIDTH, min_motion=0.0)  # cards stand still
    return replace(params, split=split)


def cards(seed: int) -> Shot:
    return coarse_cards(10, HEIGHT, WIDTH, near_px=NEAR, far_px=FAR, card_px=40, seed=seed)


def write_cards(path: Path, *shots: Shot) -> None:
    eyes = np.concatenate([np.concatenate([s.left.numpy(), s.right.numpy()], axis=3) for s in shots])
    images = np.ascontiguousarray((eyes * 255).round().astype(np.uint8).transpose(0, 2, 3, 1))
    write_film(path, iter(images), Fraction(24), crf=4)


def still_noise(seed: int) -> Shot:
    """Return a shot whose views have nothing in common."""
    images = torch.rand(2, 1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))
    left, right = images.expand(-1, 10, -1, -1, -1)
    return replace(cards(0), left=left, right=right)


def run_all(data: Path, params: Params) -> None:
    shared = params.dataset
    with folders_of("split"):
        split.run(data, split=params.split, dataset=shared)
    with folders_of("shift"):
        shift.run(data, shift=params.shift, dataset=shared)
    with folders_of("match"):
        match.run(data, match=params.match, dataset=shared)
    with folders_of("splat"):
        splat.run(data, splat=params.splat, dataset=shared)
    with folders_of("quality"):
        quality.run(data, dataset=shared)
    with folders_of("filter"):
        filter.run(data, filter=params.filter)
    with folders_of("validate"):
        validate.run(data, data / "reports", validate=params.validate)


@contextmanager
def folders_of(stage: str) -> Iterator[None]:
    """Check that a stage uses the folders of its deps in dvc.yaml, its own, and no other."""
    used = set()
    folder = Dataset.folder

    def record(self: Dataset, name: str) -> Path:
        used.add(name.split("/")[0])
        return folder(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dataset, "folder", record)
        yield
    deps = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    wanted = {dep.removeprefix("data/") for dep in deps if dep.startswith("data/")}
    assert used == (wanted - {"matchers"}) | {stage}


def test_cards_pass_through_all_stages(
    tmp_path: Path, params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raw").mkdir()
    for film in range(3):
        write_cards(tmp_path / "raw" / f"f{film}_sbs.mp4", cards(2 * film), cards(2 * film + 1))
    write_cards(tmp_path / "raw" / "noise_sbs.mp4", *(still_noise(shot) for shot in range(7)))
    (tmp_path / "raw" / "notes_sbs.mp4").write_text("not a film")
    lines = [f"{path.name},,,CC0-1.0" for path in (tmp_path / "raw").iterdir()]
    (tmp_path / "raw" / "sources.csv").write_text("\n".join(["film,packing,split,licence", *lines]) + "\n")
    run_all(tmp_path, params)

    dataset = Dataset(tmp_path)
    assert sorted((film.name, film.shots, film.clips) for film in dataset.films.values()) == [
        ("f0_sbs.mp4", 2, 2),
        ("f1_sbs.mp4", 2, 2),
        ("f2_sbs.mp4", 2, 2),
        ("noise_sbs.mp4", 7, 7),
    ]
    for film in dataset.films.values():
        seconds = film.frames / 24
        assert film.bit_rate == pytest.approx((tmp_path / "raw" / film.name).stat().st_size * 8 / seconds)
    clips = dataset.rows(Clip)
    assert {(clip.start, clip.stop) for clip in clips} == {(10 * n, 10 * n + 10) for n in range(7)}

    corrections = dataset.rows(Correction)
    assert len(corrections) == 6
    for row in corrections:
        assert abs(row.shift_px - (FAR - params.shift.margin_px)) <= 1
    assert [failed.reason for failed in dataset.failed("shift")] == 7 * ["no stereo pair"], "more than half"
    assert "shift: no clip is left of noise_sbs.mp4\n" in capsys.readouterr().out

    clip = dataset.clips()[0]
    left, right = dataset.views(clip)
    disparity, shift_px = dataset.disparity(clip), clip.correction.shift_px
    assert disparity.shape == (10, 1, *left.shape[-2:]) and left.shape == right.shape
    truth = cards(0).disparity[..., shift_px:] - shift_px
    assert ((disparity - truth).abs() <= 1).float().mean() > 0.9
    warped, occlusion = dataset.splat(clip)
    assert warped.shape == left.shape
    share = (NEAR - FAR) * HEIGHT / 2 / (HEIGHT * WIDTH)  # the strip beside the card; the border comes on top
    assert share < occlusion.float().mean() < share + (FAR + 4) / WIDTH

    assert all(row.psnr_db > 25 for row in dataset.rows(ClipQuality))
    accepted, rejected = dataset.rows(AcceptedClip), dataset.rows(RejectedClip)
    assert {row.id for row in accepted} | {row.id for row in rejected} == {clip.id for clip in clips}
    assert len(accepted) == 6 and {(r.stage, r.reason) for r in rejected} == {("shift", "no stereo pair")}

    report = (tmp_path / "reports" / "dataset.md").read_text()
    assert (
        "\nFilms without an accepted clip: 2 of 5: noise_sbs.mp4 (shift: no stereo pair), "
        "notes_sbs.mp4 (split: not a film). All expectations passed."
    ) in report
    assert (tmp_path / "validate" / "stamp.json").exists()

    capsys.readouterr()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.mkv")}
    run_all(tmp_path, params)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.mkv")} == before


def test_empty_raw_is_a_user_error(tmp_path: Path, params: Params) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match="contains no stereo film"):
        split.run(tmp_path, split=params.split, dataset=params.dataset)


def test_too_little_disk_is_refused_before_a_clip_is_written(
    tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raw").mkdir()
    write_cards(tmp_path / "raw" / "f_sbs.mp4", cards(0))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match="free disk space"):
        split.run(tmp_path, split=params.split, dataset=params.dataset)
    assert not list((tmp_path / "split").glob("*.mkv"))


def test_synthetic_shots_are_stored_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    wanted = Synthetic(shots=2, frames=2, height=32, width=64, seed=5)
    synthetic.run(tmp_path, synthetic=wanted)
    rows = Dataset(tmp_path).rows(SyntheticShot)
    assert len(rows) == 2
    folder = tmp_path / "synthetic"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.mkv")}
    for row in rows:
        left, right = Dataset(tmp_path).synthetic_views(row)
        hidden = read_occlusion(clip_file(folder, row.id, "right_occlusion"))
        near = read_disparity(clip_file(folder, row.id, "right_disparity"), row.right_offset_px)
        place = (torch.arange(64) + near).round().clamp(0, 63).long()
        error = (left.gather(-1, place.expand_as(left)) - right).abs().mean(1, keepdim=True)
        assert error[~hidden].mean() < 0.5 * error[hidden].mean(), "what both eyes see looks alike"
    synthetic.run(tmp_path, synthetic=replace(wanted, shots=3))
    assert len(Dataset(tmp_path).rows(SyntheticShot)) == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a shot was rendered again"


@pytest.mark.slow(seconds=32)
def test_real_stereo_film_reaches_the_end(footage: Path, tmp_path: Path, params: Params) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "shot_sbs.mp4").symlink_to(footage / "sv_toon_shot" / "shot_sbs.mp4")
    (tmp_path / "raw" / "sources.csv").write_text("film,packing,split,licence\nshot_sbs.mp4,,,unknown\n")
    laptop = replace(params, split=load_params(PROJECT / "params.yaml").split)
    run_all(tmp_path, laptop)
    dataset = Dataset(tmp_path)
    assert len(dataset.clips()) == 2  # 61 frames, at most 2 s each
    # Its disparities are 8 to 26 px of 1024; cropped and at working size 3.5 to 11.4 px.
    for row in dataset.rows(Correction):
        assert 1 <= row.shift_px <= 3
    assert all(row.psnr_db > 40 for row in dataset.rows(ClipQuality))
