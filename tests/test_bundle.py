"""Model bundles: contents, validation, and conversion settings."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from secondeye.conversion.bundle import (
    DEFAULT_BUNDLE,
    Bundle,
    read_bundle,
    settings_from_bundle,
    write_bundle,
)
from secondeye.conversion.bundle_parts import weights_folder
from secondeye.system.errors import UserError


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "light"
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "run.json").write_text("{}")
    (folder / "model.safetensors").write_text("weights")
    return folder


LEARNED = Bundle("motion", "light", strength_percent=2.0, convergence=0.7)


def test_written_bundle_reads_back(tmp_path: Path, weights: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", LEARNED, None, weights)
    assert read_bundle(folder) == LEARNED
    assert weights_folder(folder, "depth") is None
    assert [path.name for path in (folder / "inpaint").iterdir()] == ["model.safetensors"], (
        "no record of a run"
    )


def test_weight_free_bundle_is_bundle_json_alone(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", DEFAULT_BUNDLE, None, None)
    assert [path.name for path in folder.iterdir()] == ["bundle.json"]


def test_learned_part_requires_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="light needs its weights"):
        write_bundle(tmp_path / "bundle", LEARNED, None, None)


def test_options_override_the_settings_of_the_bundle(tmp_path: Path, weights: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", LEARNED, None, weights)
    settings = settings_from_bundle(folder)
    assert (settings.depth, settings.inpainter) == ("motion", "light")
    assert (settings.strength_percent, settings.convergence) == (2.0, 0.7)
    chosen = settings_from_bundle(folder, 5.0, 0.1, inpainter="fill")
    assert (chosen.strength_percent, chosen.convergence, chosen.inpainter) == (5.0, 0.1, "fill")


TILED = Bundle("motion", "diffusion", strength_percent=2.0, convergence=0.7, tiles=3, steps=4)


def test_tiles_and_steps_of_a_bundle_are_defaults(tmp_path: Path, weights: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", TILED, None, weights)
    assert read_bundle(folder) == TILED
    given = settings_from_bundle(folder)
    assert (given.tiles, given.steps) == (3, 4)
    chosen = settings_from_bundle(folder, tiles="auto", steps=9)
    assert (chosen.tiles, chosen.steps) == (None, 9)
    other = settings_from_bundle(folder, inpainter="fill")
    assert (other.tiles, other.steps) == (None, None) and other.unused_options() == []


def test_bundle_without_defaults_keeps_the_keys_of_older_versions(tmp_path: Path, weights: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", LEARNED, None, weights)
    record = json.loads((folder / "bundle.json").read_text())
    assert sorted(record) == ["convergence", "depth", "inpainter", "strength_percent"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiles": 0}, r"--tiles must be 1 to 16 or auto, got 0"),
        ({"tiles": 17}, r"--tiles must be 1 to 16 or auto, got 17"),
        ({"tiles": "two"}, r"--tiles must be auto or a whole number, got 'two'"),
        ({"tiles": "-1"}, r"--tiles must be auto or a whole number, got '-1'"),
        ({"steps": 0}, r"--steps must be 1 to 100, got 0"),
        ({"workers": "0"}, r"--workers must be 1 to 256 or auto, got 0"),
        ({"max_memory_gb": 0.0}, r"--max-memory-gb must be a number above 0, got 0"),
        ({"max_memory_gb": math.nan}, r"--max-memory-gb must be a number above 0, got nan"),
        ({"max_memory_gb": math.inf}, r"--max-memory-gb must be a number above 0, got inf"),
    ],
)
def test_options_out_of_range_name_option_range_and_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings_from_bundle(None, **options)


def test_options_that_the_inpainter_ignores_are_listed() -> None:
    given = settings_from_bundle(None, inpainter="fill", steps=4, offload=True, max_memory_gb=2, workers=2)
    assert given.unused_options() == ["--steps", "--offload"]


def test_only_options_that_change_pixels_are_in_the_checkpoint_key() -> None:
    plain = settings_from_bundle(None).describe()
    assert plain == settings_from_bundle(None, offload=True, max_memory_gb=2).describe()
    for options in ({"tiles": 2}, {"steps": 2}, {"compile": True}):
        assert settings_from_bundle(None, **options).describe() != plain


def test_default_settings_without_a_model() -> None:
    settings = settings_from_bundle(None)
    assert (settings.strength_percent, settings.convergence, settings.depth) == (None, None, "auto")


def test_the_checkpoint_key_identifies_weights_by_content(tmp_path: Path, weights: Path) -> None:
    one = settings_from_bundle(write_bundle(tmp_path / "one", LEARNED, None, weights))
    same = settings_from_bundle(write_bundle(tmp_path / "two", LEARNED, None, weights))
    (weights / "model.safetensors").write_text("others")
    other = settings_from_bundle(write_bundle(tmp_path / "three", LEARNED, None, weights))
    assert one.describe() == same.describe() != other.describe()


def test_trained_parts_require_a_model() -> None:
    with pytest.raises(UserError, match="--inpainter diffusion needs a --model"):
        settings_from_bundle(None, inpainter="diffusion")
    with pytest.raises(UserError, match="--depth student needs a --model"):
        settings_from_bundle(None, depth="student")


def test_folder_without_bundle_json_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a model bundle: bundle\.json is missing"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"depth": "motion"}',
        "[]",
        '{"depth": "motion", "inpainter": "fill", "strength_percent": "3", "convergence": 0.5}',
        '{"depth": "motion", "inpainter": "fill", "strength_percent": 3, "convergence": true}',
        '{"depth": "motion", "inpainter": "fill", "strength_percent": 3, "convergence": 0.5, "tiles": 2.0}',
        '{"depth": "motion", "inpainter": "fill", "strength_percent": 3, "convergence": 0.5, "steps": 0}',
        '{"depth": ["motion"], "inpainter": "fill", "strength_percent": 3, "convergence": 0.5}',
    ],
)
def test_invalid_bundle_json_is_a_user_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "bundle.json").write_text(text)
    with pytest.raises(UserError, match="cannot be read"):
        read_bundle(tmp_path)


def test_unknown_part_is_rejected(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", DEFAULT_BUNDLE, None, None)
    text = (folder / "bundle.json").read_text().replace("motion", "magic")
    (folder / "bundle.json").write_text(text)
    with pytest.raises(UserError, match="magic"):
        read_bundle(folder)
