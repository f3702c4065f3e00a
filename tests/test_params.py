from pathlib import Path

import pytest

from secondeye.params import load_params
from secondeye.system.errors import UserError

PROJECT = Path(__file__).parent.parent


def test_default_is_the_laptop_preset_and_all_presets_have_one_schema() -> None:
    assert (PROJECT / "params.yaml").read_text() == (PROJECT / "presets" / "laptop.yaml").read_text()
    laptop, small, paper = (
        load_params(PROJECT / "presets" / f"{name}.yaml") for name in ("laptop", "small", "paper")
    )
    inpaint = (laptop.train_inpaint.diffusion, small.train_inpaint.diffusion, paper.train_inpaint.diffusion)
    assert [part.size for part in inpaint] == ["tiny", "small", "svd"]
    assert (small.train_inpaint.diffusion.height, small.train_inpaint.diffusion.width) == (256, 448)
    assert (laptop.split.height, laptop.split.width) == (256, 448)
    assert (paper.split.height, paper.split.width, paper.split.window_frames) == (576, 1024, 25)
    assert paper.split.max_stride == 6 and paper.filter.min_psnr_db == 25


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("  width: 448\n", "", "missing split.width"),
        ("  width: 448\n", "  width: 448\n  depth: 3\n", "unknown split.depth"),
        ("  width: 448\n", "  with: 448\n", "missing split.width; unknown split.with"),
        ("width: 448", "width: wide", "split.width must be int, got str 'wide'"),
        ("width: 448", "width: 448.5", "split.width must be int, got float 448.5"),
        ("width: 448", "width: true", "split.width must be int, got bool True"),
        ("matcher: video", "matcher: 3", "match.matcher must be str, got int 3"),
        ("filter:\n", "filtre:\n", "missing filter; unknown filtre"),
        ("splat:\n  weight_exponent_per_px: 0.5", "splat: 3", "splat must be a mapping, got 3"),
        ("dataset:", "dataset: [", "is not YAML"),
        ("window_frames: 8", "window_frames: 0", "split.window_frames must be 1 to 10000, got 0"),
        ("test_share: 0.2", "test_share: 1.2", "filter.test_share must be 0 to 1, got 1.2"),
        (
            "matcher: video",
            "matcher: magic",
            "match.matcher must be one of video, block, flow, exported, got 'magic'",
        ),
    ],
)
def test_wrong_key_is_named(tmp_path: Path, before: str, after: str, told: str) -> None:
    text = (PROJECT / "params.yaml").read_text()
    assert before in text
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(UserError, match=told) as caught:
        load_params(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_whole_numbers_are_floats_where_floats_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((PROJECT / "params.yaml").read_text().replace("min_psnr_db: 25.0", "min_psnr_db: 27"))
    value = load_params(path).filter.min_psnr_db
    assert value == 27.0 and type(value) is float


def test_missing_and_empty_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("")
    with pytest.raises(UserError, match="the file must be a mapping"):
        load_params(tmp_path / "params.yaml")
