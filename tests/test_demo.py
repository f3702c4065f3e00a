"""What `./run demo` stands on; the whole of it runs in minutes, see benchmarks/readme.py."""

import re
import subprocess
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.main import get_command

from secondeye.cli import app
from secondeye.video.mux import plan_tracks
from secondeye.video.probe import probe
from secondeye.video.read import container_and_frame_count, decode_film

PROJECT = Path(__file__).parent.parent
RUN = (PROJECT / "run").read_text()


def test_the_clip_is_a_film_with_sound() -> None:
    clip = PROJECT / "examples" / "clip.mp4"
    info = probe(clip)
    assert (info.height, info.width, info.fps) == (480, 848, 24)
    assert info.audio == ("aac",) and plan_tracks(clip, ".mp4").losses == (0, 0)
    assert container_and_frame_count(clip)[1] == 120


@pytest.mark.slow(seconds=8)
def test_the_clip_is_what_its_script_renders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PROJECT / "examples")
    make_clip = import_module("make_clip")
    clip = next(decode_film(PROJECT / "examples" / "clip.mp4")).rgb.astype(float)
    rendered = next(make_clip.frames()).astype(float)
    psnr_db = 20 * np.log10(255 / np.sqrt(np.mean((clip - rendered) ** 2)))
    assert psnr_db > 30  # 35 dB after x264 at crf 24; the next frame is at 23


def test_the_steps_name_existing_commands() -> None:
    groups = get_command(app).commands  # type: ignore[attr-defined]
    calls = re.findall(r"secondeye (convert|stage|(?:data|model) \w+)", RUN)
    assert len(calls) == 6
    for call in calls:
        group, *name = call.split()
        assert group in groups and all(part in groups[group].commands for part in name), call


def test_the_short_training_differs_in_its_steps_only(tmp_path: Path) -> None:
    command = re.search(r"^ *sed '(.*)' params.yaml", RUN, re.MULTILINE)
    assert command
    done = subprocess.run(
        ["sed", command[1], str(PROJECT / "params.yaml")], check=True, capture_output=True, text=True
    )
    ours, short = yaml.safe_load((PROJECT / "params.yaml").read_text()), yaml.safe_load(done.stdout)
    assert short["train_depth"]["optimizer"].pop("steps") == 40
    assert ours["train_depth"]["optimizer"].pop("steps") > 40
    assert short == ours


def test_a_film_that_is_missing_is_one_line(tmp_path: Path) -> None:
    body = RUN[RUN.index("demo() {") : RUN.index("\n}\n", RUN.index("demo() {")) + 3]
    script = f'step() {{ :; }}\n{body}demo "{tmp_path}/none.mp4"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr == f"run: {tmp_path}/none.mp4: no such film\n"
    assert not (tmp_path / "demo").exists()
