"""The record that a converted film carries: version, weights, licences, settings."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from secondeye.conversion.bundle import SHIPPED, settings_from_bundle
from secondeye.conversion.convert import convert
from secondeye.conversion.provenance import own_comment, read_record, sidecar_of
from secondeye.conversion.version_file import write_version
from secondeye.system.files import hash_weights
from secondeye.video.mux import mux_film
from secondeye.video.probe import read_tags


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_film_names_version_weights_licences_and_settings(
    suffix: str, make_film: Callable[..., Path], tmp_path: Path
) -> None:
    fetched = tmp_path / "version"
    bundle = shutil.copytree(SHIPPED, fetched / "artifacts" / "bundle")
    write_version(fetched, 7, {"inpainter_licences": "CC0-1.0, CC-BY-4.0"})
    film, output = make_film(shots=(4,)), tmp_path / f"out{suffix}"
    settings = settings_from_bundle(bundle, 2.5, depth="motion", crf=30)
    convert(film, output, settings, sidecar=True, log=lambda line: None)
    record = read_record(output)
    assert record == json.loads(sidecar_of(output).read_text())
    assert record is not None and record["version"] == 7 and record["source"] == "film.mp4"
    assert record["depth"] == {"name": "motion", "licences": "no weights"}
    assert record["inpainter"] == {
        "name": "light",
        "weights": hash_weights(SHIPPED / "inpaint"),
        "licences": "CC0-1.0, CC-BY-4.0",
    }
    assert record["settings"]["strength_percent"] == 2.5 and record["settings"]["crf"] == 30
    if suffix == ".mkv":
        return  # Matroska has a random id
    again = tmp_path / f"again{suffix}"
    convert(film, again, settings, log=lambda line: None)
    assert again.read_bytes() == output.read_bytes(), "the record has no time of day"


def test_comment_of_the_source_is_kept(make_film: Callable[..., Path], tmp_path: Path) -> None:
    source, commented = make_film(shots=(3,), sound=False), tmp_path / "commented.mkv"
    mux_film([(source, 0)], source, commented, comment="a walk")  # type: ignore[list-item]
    output = tmp_path / "out.mkv"
    convert(commented, output, settings_from_bundle(None, inpainter="fill"), log=lambda line: None)
    record = read_record(output)
    assert record is not None and record["comment"] == own_comment(output) == "a walk"
    assert record["version"] is None
    assert read_record(commented) is None and read_tags(commented)["comment"] == "a walk"
