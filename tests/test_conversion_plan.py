"""The plan of the diffusion inpainter in a conversion: chosen by options, printed, recorded and reused."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas
import pytest
import torch
from test_cli import Run, secondeye

from secondeye.conversion import convert as conversion
from secondeye.conversion import shots
from secondeye.conversion.bundle import Bundle, settings_from_bundle, write_bundle
from secondeye.conversion.convert import convert
from secondeye.conversion.memory import parent_bytes, reserved_bytes
from secondeye.conversion.settings import GIB, ConversionSettings
from secondeye.inpaint import InpaintPlan
from secondeye.inpaint.tiny import make_tiny
from secondeye.registry.register import PARAMS
from secondeye.system.errors import UserError
from secondeye.video.encoders import Encoding

__all__ = ["secondeye"]  # a fixture

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle with an untrained diffusion network for windows of 4 frames."""
    folder = tmp_path_factory.mktemp("diffusion")
    torch.manual_seed(3)
    make_tiny(frames=4).save_pretrained(folder / "weights")
    parts = Bundle("motion", "diffusion", strength_percent=8.0, convergence=0.5, tiles=1, steps=1)
    return write_bundle(folder / "bundle", parts, None, folder / "weights")


@pytest.fixture
def settings(bundle: Path) -> ConversionSettings:
    return settings_from_bundle(bundle, crf=30, preset="ultrafast")


def plan_lines(said: list[str]) -> list[str]:
    return [line for line in said if line.startswith("diffusion plan")]


def test_params_of_the_registered_model_decide_the_plan(
    make_film: Callable[..., Path], bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = make_film(height=192, width=192, shots=(2,), sound=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow, about the type hints of a model
        from secondeye.registry.pyfunc_model import Converter
    model = Converter()
    model.load_context(SimpleNamespace(artifacts={"bundle": str(bundle)}))
    params = dict.fromkeys(PARAMS) | {"tiles": "2", "steps": 2, "max_memory_gb": 3.0, "preset": "ultrafast"}
    films = pandas.DataFrame({"input_path": [str(film)], "output_path": [""]})
    made = model.predict(None, films, params)
    assert made.to_dict("records") == [
        {"output_path": str(film.with_name("film_LRF_Full_SBS.mp4")), "frames": 2}
    ]
    (line,) = plan_lines(capsys.readouterr().out.splitlines())
    assert "2x2 tiles" in line and "windows of 4 frames" in line and "8 passes" in line


def test_options_of_the_command_reach_the_plan(
    make_film: Callable[..., Path], tmp_path: Path, secondeye: Run
) -> None:
    make_tiny(frames=2, in_channels=13).save_pretrained(tmp_path / "weights")  # a one-step network
    parts = Bundle("motion", "diffusion", strength_percent=8.0, convergence=0.5)
    bundle = write_bundle(tmp_path / "bundle", parts, None, tmp_path / "weights")
    film = make_film(height=192, width=192, shots=(2,), sound=False)
    command = ("convert", film, "--model", bundle, "--preset", "ultrafast")
    refused = secondeye(*command, "--max-memory-gb", "0.01")
    assert refused.returncode == 1 and "--max-memory-gb allows" in refused.stderr
    # Enough for the conversion, but not for the network, too.
    refused = secondeye(
        *command, "--max-memory-gb", str(reserved_bytes(192 * 192, Encoding(preset="ultrafast")) / GIB + 0.01)
    )
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
    assert str(film) in refused.stderr and "by diffusion takes at least" in refused.stderr
    assert not [path for path in film.parent.glob(".*unfinished")], "a refused film leaves nothing"
    done = secondeye(*command, "--tiles", "2", "--steps", "4", "--max-memory-gb", "4")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("warning: --steps: no effect")]
    assert "2x2 tiles" in plan_lines(lines)[0]


@pytest.mark.slow(seconds=6)
def test_interrupted_conversion_keeps_its_plan_and_its_bytes(
    make_film: Callable[..., Path], settings: ConversionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film(height=128, width=128, shots=(12, 12), sound=False)
    convert(film, whole := film.with_name("whole.mp4"), settings)
    part, checkpoint = film.with_name("part.mp4"), film.with_name(".part.mp4.unfinished")
    muxed = conversion._mux
    monkeypatch.setattr(conversion, "_mux", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(film, part, settings)
    monkeypatch.setattr(conversion, "_mux", muxed)
    max(checkpoint.glob("segment_*")).unlink()
    recorded = (checkpoint / "inpaint.json").read_text()
    with (
        monkeypatch.context() as patch,
        pytest.raises(UserError, match=r"part.mp4.unfinished: the unfinished conversion needs \d\.\d GiB"),
    ):
        patch.setattr(conversion, "choose_window_frames", lambda *_: 8)
        convert(film, part, replace(settings, max_memory_gb=1e-6))
    used: list[InpaintPlan] = []
    make_inpainter = shots.make_inpainter

    def watched(*given, **options):
        inpainter = make_inpainter(*given, **options)
        reuse = inpainter.reuse
        inpainter.reuse = lambda plan: used.append(plan) or reuse(plan)
        return inpainter

    monkeypatch.setattr(shots, "make_inpainter", watched)
    said: list[str] = []
    convert(film, part, replace(settings, max_memory_gb=4.0), log=said.append)
    assert [str(plan) for plan in used] == plan_lines(said) and f'"steps": {used[0].steps}' in recorded
    assert part.read_bytes() == whole.read_bytes()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_processes_of_one_device_share_the_budget(
    settings: ConversionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = replace(settings, workers=3, max_memory_gb=6.0)
    share = shots.share_memory(three).max_memory_gb
    assert share is not None and 3 * share + parent_bytes(three, 3) / GIB == pytest.approx(6.0)
    monkeypatch.setattr(shots, "count_gpus", lambda: 2)  # two of the processes have the same GPU
    assert shots.share_memory(three).max_memory_gb == 3.0
    assert shots.share_memory(replace(three, workers=2)) == replace(three, workers=2)
