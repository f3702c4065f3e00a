import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import load_preset

from secondeye.params import apply_preset, load_params
from secondeye.system.errors import UserError

PROJECT = Path(__file__).parent.parent


def keys_of(values: dict[str, Any], prefix: str = "") -> set[str]:
    nested = (keys_of(v, f"{prefix}{k}.") if isinstance(v, dict) else {prefix + k} for k, v in values.items())
    return set().union(*nested)


def test_presets_are_valid_and_have_the_same_keys(tmp_path: Path) -> None:
    presets = {name: PROJECT / "presets" / f"{name}.yaml" for name in ("laptop", "small", "paper")}
    keys = {name: keys_of(yaml.safe_load(path.read_text())) for name, path in presets.items()}
    assert keys["laptop"] == keys["small"] == keys["paper"], "any preset can follow any other"
    small, paper = load_preset("small", tmp_path), load_preset("paper", tmp_path)
    assert (small.train_diffusion.size, paper.train_diffusion.size) == ("small", "svd")
    network = paper.train_diffusion
    assert (network.height, network.width, network.frames, network.max_stride) == (576, 1024, 25, 6)
    assert paper.split.height > 576 and paper.split.width > 1024, "the shift takes rows and columns"
    assert (paper.split.window_frames, paper.split.max_stride) == (25, 6)


def test_presets_keep_comments_and_laptop_is_the_default(tmp_path: Path) -> None:
    path = Path(shutil.copy(PROJECT / "params.yaml", tmp_path))
    for name in ("paper", "small", "laptop"):
        apply_preset(PROJECT / "presets" / f"{name}.yaml", path)
        assert path.read_text().startswith("# Every parameter")
    assert path.read_text() == (PROJECT / "params.yaml").read_text()


def test_an_invalid_preset_changes_nothing(tmp_path: Path) -> None:
    path = Path(shutil.copy(PROJECT / "params.yaml", tmp_path))
    preset = tmp_path / "mine.yaml"
    preset.write_text("split:\n  width: 3\n")
    with pytest.raises(UserError, match=r"mine.yaml: split.width must be greater than or equal to 32, got 3"):
        apply_preset(preset, path)
    assert path.read_text() == (PROJECT / "params.yaml").read_text()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("  width: 448\n", "", "missing split.width"),
        ("  width: 448\n", "  width: 448\n  depth: 3\n", "unknown split.depth"),
        ("  width: 448\n", "  with: 448\n", "missing split.width; unknown split.with"),
        ("width: 448", "width: wide", "split.width must be a valid integer, got 'wide'"),
        ("width: 448", "width: 448.5", "split.width must be a valid integer, got 448.5"),
        ("width: 448", "width: true", "split.width must be a valid integer, got True"),
        ("max_seconds: 2.0", "max_seconds: true", "split.max_seconds must be a valid number, got True"),
        ("max_seconds: 2.0", "max_seconds: .nan", "split.max_seconds must be "),
        ("max_seconds: 2.0", "max_seconds: 2026-01-01", "split.max_seconds must be a valid number"),
        (
            "matcher: video",
            "matcher: 3",
            "match.matcher must be 'video', 'block', 'flow' or 'exported', got 3",
        ),
        ("sign: -1", "sign: 0", "match.exported.sign must be 1 or -1, got 0"),
        (
            "overlap_frames: 10",
            "overlap_frames: 20",
            "match.exported: overlap_frames must be less than window_fr",
        ),
        ("filter:\n", "filtre:\n", "missing filter; unknown filtre"),
        ("splat:\n  weight_exponent_per_px: 0.5", "splat: 3", "splat must be a mapping, got 3"),
        ("dataset:", "dataset: [", "not valid YAML"),
        (
            "window_frames: 8",
            "window_frames: 0",
            "split.window_frames must be greater than or equal to 1, got 0",
        ),
        ("test_share: 0.2", "test_share: 1.2", "filter.test_share must be less than or equal to 1, got 1.2"),
        (
            "  height: 128\n  width: 224\n  frames: 2",
            "  height: 100\n  width: 224\n  frames: 2",
            "train_depth.height must be a multiple of 32, got 100",
        ),
    ],
)
def test_wrong_key_is_named(tmp_path: Path, before: str, after: str, expected: str) -> None:
    text = (PROJECT / "params.yaml").read_text()
    assert before in text
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(UserError, match=expected) as caught:
        load_params(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_an_integer_is_accepted_for_a_float(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((PROJECT / "params.yaml").read_text().replace("min_psnr_db: 25.0", "min_psnr_db: 27"))
    value = load_params(path).filter.min_psnr_db
    assert value == 27.0 and type(value) is float


def test_missing_and_empty_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="file not found"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("")
    with pytest.raises(UserError, match="the file must be a mapping"):
        load_params(tmp_path / "params.yaml")
