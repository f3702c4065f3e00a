"""Train Deep3D on real stereo films and synthetic shots, and compare it on films that it was not trained on.

    SECONDEYE_FOOTAGE=... python benchmarks/deep3d.py [--steps 300] [--shots 24]

Films are halved: each half is scored by the Deep3D that was trained on the other one and on the synthetic
shots, at the size of the laptop preset. `motion` with the shipped inpainter gets its depth aligned to the
true disparity by one scale and one shift, as in the stage `evaluate`; Deep3D is scored unchanged.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from command import make_parser, run
from machine import machine
from real_films import FILMS, read_clips
from torch import Tensor

from presets import load_preset, run_stage
from secondeye.conversion.bundle_parts import SHIPPED
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import SyntheticShot
from secondeye.evaluation.columns import COLUMNS as SCORES
from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.methods import BASELINES, DEEP3D, Method, make_right
from secondeye.evaluation.score import compute, prepare, update
from secondeye.params import TrainDeep3D
from secondeye.run_folder import open_run
from secondeye.system.errors import UserError
from secondeye.training.deep3d import RenderedPair, train_deep3d

HALVES = (("candle", "motorcycle", "fence"), ("toon", "kitti", "cones"))
METHODS = (
    *(method for method in BASELINES if method.name in ("identity", "best shift")),
    Method("motion + shipped light", "model", "motion", None, "light", SHIPPED / "inpaint"),
)
COLUMNS = (
    "psnr_db",
    "haarpsi",
    "siou",
    "epe_px",
    "disparity_correlation",
    "sharpness_ratio",
    "flicker",
)


@dataclass(frozen=True)
class MemoryPair:
    """A clip of a real film."""

    clip: EvalFrames
    film: str

    @property
    def frames(self) -> int:
        return len(self.clip.left)

    def views(self, frame: int) -> tuple[Tensor, Tensor]:
        return self.clip.left[frame : frame + 1], self.clip.right[frame : frame + 1]

    def disparity(self, frame: int) -> Tensor:
        return self.clip.disparity[frame : frame + 1]


def main() -> None:
    """Train twice and print a table for each film."""
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=300, help="of each training (default: 300)")
    parser.add_argument("--shots", type=int, default=24, help="synthetic training shots (default: 24)")
    options = parser.parse_args()
    footage = os.environ.get("SECONDEYE_FOOTAGE")
    if not footage:
        raise UserError("SECONDEYE_FOOTAGE must name the folder of real films")
    preset = load_preset("laptop")
    preset = replace(preset, synthetic=replace(preset.synthetic, shots=options.shots))
    settings = preset.train_deep3d
    settings = replace(settings, optimizer=replace(settings.optimizer, steps=options.steps))
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run_stage("synthetic", folder / "data", preset)
        clips = {film.name: list(read_clips(Path(footage), film)) for film in FILMS}
        dataset = Dataset(folder / "data")
        rendered = [RenderedPair(dataset, row) for row in dataset.rows(SyntheticShot)]
        for scored, trained_on in (HALVES, HALVES[::-1]):
            pairs = [MemoryPair(clip, name) for name in trained_on for clip in clips[name]]
            method = train(settings, [*pairs, *rendered], folder / scored[0])
            for name in scored:
                print(f"\n{table(name, clips[name], [*METHODS, method])}", flush=True)


def train(settings: TrainDeep3D, shots: Sequence[MemoryPair | RenderedPair], folder: Path) -> Method:
    """Train Deep3D, print how long it took, and return it as a method."""
    folder.mkdir()
    trained, start = open_run(folder, "deep3d", "train_deep3d", settings, {}), time.monotonic()
    train_deep3d(trained, shots, settings)
    seconds, scores = time.monotonic() - start, trained.metrics()[-1]
    size = f"{settings.width}x{settings.height}"
    films = ", ".join(dict.fromkeys(shot.film for shot in shots if isinstance(shot, MemoryPair)))
    print(
        f"\nTrained on {films} and synthetic shots: {settings.optimizer.steps} steps of "
        f"{settings.optimizer.batch_size} frames of {size} in {seconds:.0f} s. PSNR at that size on shots "
        f"held out from training: {scores['deep3d/psnr_db']:.2f} dB; best constant shift of each "
        f"{scores['deep3d/best_shift_psnr_db']:.2f} dB."
    )
    return Method("Deep3D", "model", DEEP3D, trained.model)


def table(name: str, clips: Sequence[EvalFrames], methods: Sequence[Method]) -> str:
    """Return a row for each method: means over clips, and processor time."""
    height, width = clips[0].left.shape[-2:]
    head = [f"{name}, {width}x{height}", *(SCORES[c].heading for c in COLUMNS), "CPU s a frame"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    references = [prepare(clip.left, clip.right, clip.regions) for clip in clips]
    for method in methods:
        rows, seconds = [], []
        for clip, reference in zip(clips, references, strict=True):
            make_right(method, clip)  # compiles, and loads weights
            start = time.process_time()
            made = make_right(method, clip).right
            seconds.append((time.process_time() - start) / len(made))
            rows.append(compute(update(reference, made, overlap=0, learned=None)))
        means = (float(np.mean([row[column] for row in rows])) for column in COLUMNS)
        cells = [
            "-" if np.isnan(mean) else f"{mean:.{SCORES[column].digits}f}"
            for mean, column in zip(means, COLUMNS, strict=True)
        ]
        lines.append(f"| {' | '.join([method.name, *cells, f'{np.mean(seconds):.3f}'])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
