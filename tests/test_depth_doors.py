"""A user's own depth network through the doors: it runs, its licence is shown, and the film names it."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import moving_images
from depth_models import write_model
from exported_networks import WRITERS
from fake_hub import serve_hub, use_hub
from transformers import DepthAnythingForDepthEstimation

from secondeye import cli
from secondeye.conversion.bundle import Bundle, settings_from_bundle, write_bundle
from secondeye.conversion.convert import convert
from secondeye.conversion.provenance import read_record
from secondeye.conversion.settings import ConversionSettings
from secondeye.conversion.shot_depth import estimate_shot
from secondeye.depth import exported
from secondeye.depth.estimators import make_depth_estimator
from secondeye.depth.hugging_face import DEPTH_ANYTHING_V2
from secondeye.gate.candidate import load_candidate
from secondeye.gate.version_facts import facts_of_winner
from secondeye.registry import models as registered
from secondeye.system.errors import UserError

SETTINGS = ConversionSettings(3.0, 0.5, "motion", "fill", 23, "ultrafast", None)
MakeFilm = Callable[..., Path]


class FirstChannel(torch.nn.Module):
    """Take the red channel for depth."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :1]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the inputs that Depth Anything's network was given."""
    shapes: list[tuple[int, ...]] = []
    forward = DepthAnythingForDepthEstimation.forward

    def counted(self: Any, pixel_values: torch.Tensor) -> Any:
        shapes.append(tuple(pixel_values.shape))
        return forward(self, pixel_values=pixel_values)

    monkeypatch.setattr(DepthAnythingForDepthEstimation, "forward", counted)
    return shapes


def depth_of(film: Path) -> dict[str, Any]:
    record = read_record(film)
    assert record is not None
    described: dict[str, Any] = record["depth"]
    return described


def test_a_hugging_face_model_converts_a_film_and_is_named(
    make_film: MakeFilm, tmp_path: Path, calls: list[tuple[int, ...]]
) -> None:
    folder, said = write_model(tmp_path / "my-depth", "metric"), list[str]()
    made = convert(make_film(shots=(5,)), None, replace(SETTINGS, depth=f"hf:{folder}"), log=said.append)
    assert calls == 5 * [(1, 3, 42, 56)]
    assert sum("licence: apache-2.0" in line for line in said) == 1
    described = depth_of(made.output)
    assert described["name"] == "hf:my-depth" and described["licences"] == "apache-2.0"
    assert len(described["weights"]) == 64


def test_an_exported_network_converts_a_film_and_is_named(
    make_film: MakeFilm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ramp(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, :1].cumsum(3) * 0 + torch.ones_like(images[:, :1]).cumsum(
                3
            )  # nearer to the right

    path = WRITERS["pt2"](tmp_path / "own.pt2", torch.export.export(Ramp(), (torch.zeros(1, 3, 48, 64),)))
    said = {"larger_is": "nearer", "licence": "CC0-1.0"}
    (tmp_path / "own.pt2.json").write_text(json.dumps(said))
    film, outputs, loaded, hashed = make_film(shots=(5,)), [], list[Path](), list[Path]()
    load, hash_file = torch.export.load, exported.hash_file
    monkeypatch.setattr(torch.export, "load", lambda file: loaded.append(file) or load(file))
    monkeypatch.setattr(exported, "hash_file", lambda file: hashed.append(file) or hash_file(file))
    for depth in (f"exported:{path}", "motion"):
        output = tmp_path / f"{len(outputs)}.mp4"
        convert(film, output, replace(SETTINGS, depth=depth), log=lambda line: None)
        outputs.append(output)
    assert loaded == hashed == [path]
    described = depth_of(outputs[0])
    assert described["name"] == "exported:own.pt2" and described["licences"] == "CC0-1.0"
    assert outputs[0].read_bytes() != outputs[1].read_bytes()
    before = replace(SETTINGS, depth=f"exported:{path}").describe()
    (tmp_path / "own.pt2.json").write_text(json.dumps(said | {"larger_is": "farther"}))
    after = replace(SETTINGS, depth=f"exported:{path}").describe()
    assert before["depth_weights"] != after["depth_weights"]  # does not continue the other's conversion


@pytest.mark.parametrize("kind", ["hf", "exported"])
def test_a_bundle_can_hold_the_network(make_film: MakeFilm, tmp_path: Path, kind: str) -> None:
    weights = tmp_path / "weights"
    if kind == "hf":
        write_model(weights, "relative")
    else:
        weights.mkdir()
        program = torch.export.export(FirstChannel(), (torch.zeros(1, 3, 48, 64),))
        WRITERS["pt2"](weights / "own.pt2", program)
        (weights / "own.pt2.json").write_text('{"larger_is": "nearer", "licence": "apache-2.0"}')
    bundle = write_bundle(tmp_path / "bundle", Bundle(kind, "fill", 3.0, 0.5), weights, None)
    made = convert(make_film(shots=(3,)), None, settings_from_bundle(bundle), log=lambda line: None)
    described = depth_of(made.output)
    assert described["name"] == ("hf:depth" if kind == "hf" else "exported:own.pt2")
    assert described["licences"] == "apache-2.0"
    facts = facts_of_winner(load_candidate(bundle), [], [], {})
    assert facts.tags["depth"] == kind and facts.tags["depth_licences"] == "apache-2.0"
    with pytest.raises(UserError, match=f"needs a --model that holds its weights, or --depth {kind}:SOURCE"):
        replace(SETTINGS, depth=kind)


def test_an_interrupted_depth_pass_continues_to_the_same_bytes(tmp_path: Path) -> None:
    estimator = make_depth_estimator(f"hf:{write_model(tmp_path / 'model', 'zoedepth')}", None, "cpu")
    frames = torch.from_numpy(moving_images(9, 48, 64))
    read: list[int] = []

    def windows(until: int) -> Callable[[int], Iterator[torch.Tensor]]:
        def from_frame(first: int) -> Iterator[torch.Tensor]:
            read.append(first)
            yield from frames[first:until].split(2)
            if until < len(frames):
                raise KeyboardInterrupt

        return from_frame

    whole = estimate_shot(windows(9), estimator, tmp_path / "whole.f32", save_every=2)
    with pytest.raises(KeyboardInterrupt):
        estimate_shot(windows(5), estimator, tmp_path / "parts.f32", save_every=2)
    parts = estimate_shot(windows(9), estimator, tmp_path / "parts.f32", save_every=2)
    assert read == [0, 0, 4]  # continued, not begun again
    assert (tmp_path / "parts.f32").read_bytes() == (tmp_path / "whole.f32").read_bytes()
    assert (parts.low, parts.high, parts.frames) == (whole.low, whole.high, 9)


def test_auto_says_which_estimator_it_took(
    make_film: MakeFilm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[int, ...]]
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    film, said = make_film(shots=(3,)), list[str]()
    settings = replace(SETTINGS, depth="auto")
    first = convert(film, tmp_path / "1.mp4", settings, log=said.append)
    assert said[0].startswith("depth: motion (") and "hf download" in said[0] and not calls
    assert depth_of(first.output)["name"] == "motion"
    snapshot = cache / "models--depth-anything--Depth-Anything-V2-Small-hf" / "snapshots" / "0123"
    write_model(snapshot, "relative")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0123")
    second = convert(film, tmp_path / "2.mp4", settings, log=said.append)
    assert sum(line.startswith("depth: depth-anything-v2 (licence: apache-2.0") for line in said) == 1
    assert len(calls) == 3
    assert depth_of(second.output)["name"] == "depth-anything-v2"


def test_auto_downloads_once_where_there_is_a_network(
    make_film: MakeFilm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: list[tuple[int, ...]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, film = write_model(tmp_path / "model", "relative"), make_film(shots=(3,))
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling.py").write_text("raise SystemExit")
    cache, lines = tmp_path / "cache", list[str]()
    with serve_hub({DEPTH_ANYTHING_V2: folder}) as (address, requests):
        use_hub(monkeypatch, address, cache)
        for count in (1, 2):
            settings = replace(SETTINGS, depth="auto")
            made = convert(film, tmp_path / f"{count}.mp4", settings, log=lines.append)
            assert depth_of(made.output)["name"] == "depth-anything-v2" and len(calls) == 3 * count
            if count == 1:
                asked = len(requests)
                assert "100%" in capsys.readouterr().err  # of the download, too
        assert len(requests) == asked, "the second conversion asks nobody"
    got = {Path(request).name for request in requests if "/resolve/" in request}
    assert got == {"config.json", "preprocessor_config.json", "model.safetensors", "README.md"}
    assert sum(line.startswith("downloading") for line in lines) == 1


def test_a_model_that_cannot_be_downloaded_is_one_line(
    make_film: MakeFilm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, film = write_model(tmp_path / "model", "relative"), make_film(shots=(3,))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with serve_hub({"org/pickled": folder}) as (address, _):
        use_hub(monkeypatch, address, tmp_path / "cache")
        for model, message in [
            ("org/pickled", r"missing model.safetensors"),
            ("org/missing", r"org/missing: not on this machine and cannot be downloaded \(.*no such model"),
        ]:
            with pytest.raises(UserError, match=message) as refusal:
                convert(film, None, replace(SETTINGS, depth=f"hf:{model}"), log=lambda line: None)
            assert "\n" not in str(refusal.value)


def test_offline_reaches_every_process_and_older_code(
    monkeypatch: pytest.MonkeyPatch, make_film: MakeFilm
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    seen: list[Any] = []

    def replaced(uri: str, arguments: list[str], module: str | None) -> None:
        seen.append((os.environ.get("HF_HUB_OFFLINE"), arguments))
        raise SystemExit(0)

    monkeypatch.setattr(registered, "run_registered_code", replaced)
    for options in ([], ["--offline"]):
        given = ["convert", str(make_film(shots=(2,))), "--model", "models:/secondeye@champion", *options]
        monkeypatch.setattr("sys.argv", ["secondeye", *given])
        with pytest.raises(SystemExit):
            cli.app(given)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert [offline for offline, _ in seen] == [None, "1"]
    assert not any("--offline" in arguments for _, arguments in seen)
