"""Named weights: had from the hub once, and one line within seconds where it cannot be reached."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_hub import serve_hub, serve_page, serve_silence, use_hub

from secondeye.cli import main
from secondeye.depth.depthcrafter.weights import NETWORK, SVD, identify
from secondeye.inpaint.pretrained import find_pipeline
from secondeye.metrics.learned import load_learned_metrics
from secondeye.system import hub
from secondeye.system.errors import UserError

NAMED = ("depth-anything-v2", "hf:org/model", "depthcrafter", "video-depth-anything")


@contextmanager
def nobody() -> Iterator[str]:
    yield "http://127.0.0.1:1"


@pytest.mark.parametrize("serve", [nobody, serve_silence, serve_page])
@pytest.mark.parametrize("depth", NAMED)
def test_weights_that_cannot_be_downloaded_are_one_line_at_once(
    make_film: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    depth: str,
    serve: Callable[[], Iterator[str]],
) -> None:
    film = make_film(shots=(2,), sound=False)
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(sys, "argv", ["secondeye", "depth", str(film), "--depth", depth, "--output", "maps"])
    monkeypatch.chdir(tmp_path)
    started = time.monotonic()
    with serve() as address:
        use_hub(monkeypatch, address, tmp_path / "cache")
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 1 and time.monotonic() - started < 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be downloaded (127.0.0.1:" in line and "hf download" in line


def test_other_named_weights_are_one_line_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.2)
    with serve_silence() as address:
        use_hub(monkeypatch, address, tmp_path)
        for load in (find_pipeline, load_learned_metrics):
            started = time.monotonic()
            with pytest.raises(UserError, match=r"org/name: .* does not answer.*hf download"):
                load("org/name")
            assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("status", "reason"), [(0, "does not answer"), (403, "licence must be accepted"), (500, "500")]
)
def test_a_model_whose_files_are_not_given_out_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, reason: str
) -> None:
    """The description of a gated model is public."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.5)
    with serve_hub({"org/model": tmp_path / "model"}, files_status=status) as (address, requests):
        use_hub(monkeypatch, address, tmp_path / "cache")
        with pytest.raises(UserError, match=rf"org/model: .*{reason}.*; do this") as refused:
            hub.find_model("org/model", ["*.json"], "do this", is_complete=lambda folder: True)
        with pytest.raises(UserError, match=r"has none of \*\.onnx"):
            hub.find_model("org/model", ["*.onnx"], "do this", is_complete=lambda folder: True)
    assert "\n" not in str(refused.value) and len(requests) == 3


def test_depthcrafter_is_downloaded_once(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its network, and of Stable Video Diffusion all but the network."""
    folders = {NETWORK: release / "DepthCrafter", SVD: release / "stable-video-diffusion-img2vid-xt-1-1"}
    with serve_hub(folders) as (address, requests):
        use_hub(monkeypatch, address, tmp_path)
        assert identify(None) == identify(release)
        asked = len(requests)
        assert identify(None) == identify(release) and len(requests) == asked
    assert not any("/unet/" in request for request in requests)
