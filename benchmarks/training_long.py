"""Train every model of the laptop preset on a long dataset, and measure time and memory of each stage.

    python benchmarks/training_long.py [--minutes 60] [--preset laptop] [--steps 20] [--stages NAME ...]

The dataset is that of `training_samples.py`: clips of six seconds that are links to one, in 100 films, and
the preset's synthetic shots. Each stage runs as in dvc.yaml, in a program of its own. Memory is the sum over
its processes of what is theirs (PSS: shared pages are divided among those that share them), read five times
a second.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml
from command import make_parser, run
from machine import machine
from training_samples import FRAMES, SIZES, write_dataset

from presets import PROJECT, load_preset, run_stage
from secondeye.dataset.stamp import write_stamp
from secondeye.params import apply_preset
from secondeye.system.errors import UserError

PATHS = {  # of the stages, as in dvc.yaml
    "train_depth": ["data", "models/depth", ".runs"],
    "train_light": ["data", "models/inpaint/light", ".runs"],
    "train_autoencoder": ["data", "models/autoencoder", ".runs"],
    "train_diffusion": ["data", "models/autoencoder", "models/inpaint/diffusion", ".runs"],
    "train_deep3d": ["data", "models/deep3d", ".runs"],
}
FPS = 25
POLL_SECONDS = 0.2


def main() -> None:
    """Write the dataset, run the stages one by one and print a row for each."""
    parser = make_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--preset", default="laptop", choices=("laptop", "small"))
    parser.add_argument("--steps", type=int, help="of every training; default: the preset's")
    parser.add_argument("--stages", nargs="*", default=list(PATHS), choices=list(PATHS))
    options = parser.parse_args()
    clips = round(options.minutes * 60 * FPS / FRAMES)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        write_project(project, options.preset, clips, options.steps)
        print(f"{machine()}\n\npreset {options.preset}, {clips} clips, {options.minutes:g} minutes of film\n")
        print("| stage | seconds | peak memory, MiB |\n|---|---|---|")
        for stage in options.stages:
            seconds, peak = run_watched(
                [sys.executable, "-m", "secondeye", "stage", stage, *PATHS[stage]], project
            )
            print(f"| `{stage}` | {seconds:.0f} | {peak / 2**20:.0f} |", flush=True)


def write_project(project: Path, preset: str, clips: int, steps: int | None) -> None:
    """Write a project folder: params.yaml and a dataset with synthetic shots that counts as validated."""
    path = project / "params.yaml"
    path.write_bytes((PROJECT / "params.yaml").read_bytes())
    apply_preset(PROJECT / "presets" / f"{preset}.yaml", path)
    if steps:
        values = yaml.safe_load(path.read_text())
        sections = values["train_diffusion"]["autoencoder"], values["train_diffusion"]["network"]
        sections += tuple(values[f"train_{name}"]["optimizer"] for name in ("depth", "light", "deep3d"))
        for section in sections:
            section["steps"] = steps
        path.write_text(yaml.safe_dump(values, sort_keys=False))
    data = project / "data"
    write_dataset(data, SIZES[preset], clips)
    run_stage("synthetic", data, load_preset(preset))
    (data / "validate").mkdir()
    write_stamp(data / "validate", clips, "benchmark")


def run_watched(command: list[str], project: Path) -> tuple[float, int]:
    """Run a program and return its seconds and the peak memory of it and its children, bytes.

    Raises UserError with the end of its output if it fails.
    """
    start, peak = time.monotonic(), 0
    log = project / "stage.log"
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db"}
    with log.open("wb") as output:
        process = psutil.Popen(command, cwd=project, stdout=output, stderr=subprocess.STDOUT, env=environment)
        while process.poll() is None:
            peak = max(peak, sum(map(pss_bytes, [process, *process.children(recursive=True)])))
            time.sleep(POLL_SECONDS)
    if process.returncode:
        raise UserError(f"{' '.join(command[2:5])}: {log.read_text()[-500:]}")
    return time.monotonic() - start, peak


def pss_bytes(process: psutil.Process) -> int:
    """Return the memory of a process, 0 if it has ended."""
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0


if __name__ == "__main__":
    run(main)
