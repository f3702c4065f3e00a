"""A registered diffusion network converts a film through the flow: windows, tiles, seams, kill and resume."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import psutil
import pytest
import torch
from conftest import FLOWS, PROJECT, call_without_server
from moving_card import write_moving_card

from secondeye.conversion.bundle import Bundle, settings_from_bundle, write_bundle
from secondeye.conversion.convert import convert
from secondeye.inpaint import InpaintPlan
from secondeye.inpaint.module_checks import IN_CHANNELS
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.tiny import make_autoencoder, make_image_encoder, make_network, make_scheduler
from secondeye.registry.champion import ensure_champion
from secondeye.registry.register import VersionFacts
from secondeye.system.errors import UserError
from secondeye.video.probe import probe
from secondeye.video.read import decode_film

FRAMES, HEIGHT, WIDTH, FPS = 30, 400, 704, 2  # 15 seconds: more than one segment
SAMPLE_SIZE = 40  # a tile is 320 x 320 px in area: the frame takes 2 x 2 of them at full resolution
LOSSLESS = {"crf": 0, "preset": "ultrafast"}

# Imported by Python at its start: records the input shape of every pass of the network in the file RECORD.
RECORDER = """
import os, sys
if "convert" in sys.orig_argv and "RECORD" in os.environ:
    from torch.nn.modules.module import register_module_forward_pre_hook

    def record(module, inputs):
        if type(module).__name__ == "UNetSpatioTemporalConditionModel":
            with open(os.environ["RECORD"], "a") as file:
                print(list(inputs[0].shape), file=file)

    register_module_forward_pre_hook(record)
"""


@pytest.fixture
def flow(
    with_registry: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """Register a narrow network as champion, record its passes, and import the flow without a server."""
    weights = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    # As few channels as the blocks allow: a CPU runs windows of 25 frames in several tiles.
    StereoInpaintPipeline(
        make_autoencoder(8, (32,)),
        make_image_encoder(),
        make_network(25, IN_CHANNELS, (32, 32), SAMPLE_SIZE),
        make_scheduler(),
    ).save_pretrained(weights)
    parts = Bundle("motion", "diffusion", strength_percent=10.0, convergence=0.7, steps=1)
    ensure_champion(write_bundle(with_registry / "bundle", parts, None, weights), VersionFacts({}, ""))
    hooks = with_registry / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(RECORDER)
    monkeypatch.setenv("PYTHONPATH", f"{hooks}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("RECORD", str(with_registry / "passes.txt"))
    monkeypatch.setenv("PREFECT_HOME", str(with_registry / "prefect"))
    monkeypatch.syspath_prepend(PROJECT / "flows")
    module = import_module("conversion")
    monkeypatch.setattr(module, "run_log", lambda: print)
    monkeypatch.setattr(import_module("notify"), "run_log", lambda: print)
    call_without_server(module, with_registry, monkeypatch)
    monkeypatch.setattr(sys.modules["inbox"], "STILL_S", -1)
    monkeypatch.setattr(sys.modules["turn"], "others_at_work", lambda share_machine: [])
    yield module
    for name in FLOWS:
        sys.modules.pop(name, None)


def passes(folder: Path) -> list[list[int]]:
    path = folder / "passes.txt"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow(seconds=115)
@pytest.mark.timeout(600)
def test_film_through_flow_and_registry(flow: ModuleType, with_registry: Path) -> None:
    def run(outbox: str) -> None:
        flow.convert_folder.fn(str(with_registry / "in"), str(with_registry / outbox), **LOSSLESS)

    (with_registry / "in").mkdir()
    film = write_moving_card(with_registry / "in" / "film.mp4", FRAMES, HEIGHT, WIDTH, FPS)
    run("whole")
    whole = with_registry / "whole" / "film_LRF_Full_SBS.mp4"
    shapes = passes(with_registry)
    plan = make_plan(with_registry / "bundle")
    assert (plan.tile_rows, plan.tile_columns, plan.height, plan.width) == (2, 2, HEIGHT, WIDTH)
    assert set(map(tuple, shapes)) == {(1, 25, 9, plan.tile_height // 8, plan.tile_width // 8)}
    assert len(shapes) == 2 * 4  # windows x tiles, in one step
    require_every_frame_once(film, whole)
    require_no_seams(film, whole, plan, with_registry)

    killer = threading.Thread(target=kill_after_passes, args=(with_registry, len(shapes) + 5))
    killer.start()
    with pytest.raises(UserError, match=r"film\.mp4"):
        run("killed")
    killer.join()
    assert list((with_registry / "killed").glob(".*.unfinished"))
    before = len(passes(with_registry))
    run("killed")
    assert len(passes(with_registry)) - before < len(shapes), "finished windows must not run again"
    assert (with_registry / "killed" / "film_LRF_Full_SBS.mp4").read_bytes() == whole.read_bytes()


def make_plan(bundle: Path) -> InpaintPlan:
    from secondeye.inpaint import make_inpainter

    inpainter = make_inpainter(
        "diffusion", bundle / "inpaint", "cpu", settings_from_bundle(bundle).inpaint_options
    )
    return inpainter.plan(HEIGHT, WIDTH)


def require_every_frame_once(film: Path, output: Path) -> None:
    """Check that the left views are the film's frames in order, with its time stamps and its sound."""
    assert (probe(output).width, probe(output).height, probe(output).audio) == (
        2 * WIDTH,
        HEIGHT,
        probe(film).audio,
    )
    bases = probe(film).time_base, probe(output).time_base
    count = 0
    for source, made in zip(decode_film(film), decode_film(output), strict=True):
        assert source.pts * bases[0] == made.pts * bases[1]
        assert np.abs(made.rgb[:, :WIDTH].astype(int) - source.rgb).mean() < 1
        count += 1
    assert count == FRAMES


def require_no_seams(film: Path, output: Path, plan: InpaintPlan, folder: Path) -> None:
    """Compare the gradient in holes at the tiles' borders with that elsewhere in holes.

    Holes are the pixels that differ from a conversion that inpaints in another way.
    """
    settings = settings_from_bundle(folder / "bundle", inpainter="fill", **LOSSLESS)
    convert(film, folder / "fill.mp4", settings)
    rows = {plan.tile_height, HEIGHT - plan.tile_height}
    columns = {plan.tile_width, WIDTH - plan.tile_width}
    at_seam, inside = [], []
    for one, other in zip(decode_film(output), decode_film(folder / "fill.mp4"), strict=True):
        right, filled = (frame.rgb[:, WIDTH:].astype(int).mean(2) for frame in (one, other))
        hole = np.abs(right - filled) > 4
        for axis, borders in ((0, rows), (1, columns)):
            steps = np.abs(np.diff(right, axis=axis))
            both = hole & np.roll(hole, -1, axis)
            both = both[:-1] if axis == 0 else both[:, :-1]
            lines = np.isin(np.arange(both.shape[axis]), [border - 1 for border in borders])
            selected = lines[:, None] if axis == 0 else lines[None]
            at_seam.append(steps[both & selected])
            inside.append(steps[both & ~selected])
    seam, rest = np.concatenate(at_seam), np.concatenate(inside)
    print(f"seams {seam.mean():.3f} of {seam.size}, inside {rest.mean():.3f} of {rest.size}")
    assert seam.size > 200 and rest.size > 10_000
    assert seam.mean() <= 1.1 * rest.mean()


def kill_after_passes(folder: Path, count: int) -> None:
    """Kill the conversion with -9 once the network has run `count` times."""
    end = time.monotonic() + 300
    while len(passes(folder)) < count and time.monotonic() < end:
        time.sleep(0.02)
    for process in psutil.Process().children(recursive=True):
        if "convert" in process.cmdline():
            process.send_signal(signal.SIGKILL)
