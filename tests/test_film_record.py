"""The record that a converted film carries: version, weights, licences, settings."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from secondeye import cli
from secondeye.conversion.bundle import settings_from_bundle
from secondeye.conversion.bundle_parts import SHIPPED
from secondeye.conversion.convert import convert
from secondeye.conversion.provenance import has_synthesised_left, own_comment, read_record, sidecar_of
from secondeye.conversion.version_file import write_version
from secondeye.registry.conversion_run import record_conversion
from secondeye.registry.kinds import experiment_name
from secondeye.registry.server import connected, experiment_of
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
    settings = settings_from_bundle(None, inpainter="fill", mono=True)  # it is tagged as side by side
    convert(commented, output, settings, log=lambda line: None)
    record = read_record(output)
    assert record is not None and record["comment"] == own_comment(output) == "a walk"
    assert record["version"] is None
    assert read_record(commented) is None and read_tags(commented)["comment"] == "a walk"


@pytest.mark.parametrize("comment", ["{", "[]", "{}", '{"secondeye": "1", "settings": null}'])
def test_a_comment_that_is_not_whole_is_no_record(
    make_film: Callable[..., Path], tmp_path: Path, comment: str
) -> None:
    source, commented = make_film(shots=(3,), sound=False), tmp_path / "commented.mkv"
    mux_film([(source, 0)], source, commented, comment=comment)  # type: ignore[list-item]
    assert read_record(commented) is None and not has_synthesised_left(commented)
    assert own_comment(commented) == comment


def test_recorded_conversion_is_a_run_in_mlflow(
    with_registry: Path, make_film: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = with_registry / "film_LRF_Full_SBS.mp4"
    settings = settings_from_bundle(None, depth="motion", inpainter="fill")
    convert(make_film(shots=(12,)), output, settings, log=lambda line: None)
    command = ["model", "record", str(output), "--seconds", "4"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert CliRunner().invoke(cli.app, command).exception, "MLflow is away"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    for _ in range(2):
        done = CliRunner().invoke(cli.app, command)
        assert done.exit_code == 0, done.output
    with connected() as client:
        [run] = client.search_runs([experiment_of(client, experiment_name("convert"))])
        assert [item.path for item in client.list_artifacts(run.info.run_id, "pictures")] == [
            "pictures/preview.png"
        ]
    assert run.info.run_name.startswith("conversion film_LRF_Full_SBS.mp4 ") and run.info.status == "FINISHED"
    assert run.data.metrics["frames"] == 12 and run.data.metrics["converted_frames_per_second"] == 3
    assert run.data.metrics["duration_seconds"] == 0.5
    assert run.data.params["depth"] == "motion" and run.data.params["version"] == "none"
    assert run.data.params["views"] == "right"
    assert run.data.tags["secondeye.source"] == "film.mp4"


def test_film_of_an_older_version_is_recorded_without_what_it_does_not_say(
    make_film: Callable[..., Path], tmp_path: Path
) -> None:
    run = record_conversion(tmp_path, make_film("film.mkv", shots=(12,)))
    assert run.finished and run.metrics()[0]["frames"] == 12
    assert set(run.read()["params"].values()) == {"not recorded"}
