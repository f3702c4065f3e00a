"""Both inpainters, taught by stereo clips, the synthetic world, and films with one eye."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from secondeye.files import hash_file
from secondeye.params import TrainInpaint
from secondeye.runs import Run, finish_model, make_run_key, open_run
from secondeye.sources import list_mono
from secondeye.training.provenance import inputs_of, licences_of, train_clips

if TYPE_CHECKING:
    from secondeye.training.samples import Scene

_MONO_SEED = 0  # of the disparities that films with one eye are warped with


def run(
    raw: Path,
    split: Path,
    shift: Path,
    match: Path,
    filter: Path,
    validate: Path,
    world: Path,
    out: Path,
    runs: Path,
    *,
    train_inpaint: TrainInpaint,
) -> None:
    """Have `out` hold light/ and diffusion/, each trained in `runs` unless it was before."""
    mono = list_mono(raw)
    inputs = inputs_of(validate, world) | {"mono": " ".join(hash_file(film.path) for film in mono)}
    tags = inputs | {"licences": licences_of(split, filter, mono)}
    folders = (split, shift, match, filter, world)

    def teach_light(run: Run) -> None:
        from secondeye.training.light import train_light

        train_light(run, *_scenes(*folders, [film.path for film in mono]), train_inpaint.light)

    def teach_diffusion(run: Run) -> None:
        from secondeye.training.diffusion import train_diffusion

        train_diffusion(run, *_scenes(*folders, [film.path for film in mono]), train_inpaint.diffusion)

    for name, settings, teach in (
        ("light", train_inpaint.light, teach_light),
        ("diffusion", train_inpaint.diffusion, teach_diffusion),
    ):
        key = make_run_key(f"secondeye.training.{name}", [settings], inputs)
        finish_model(out / name, open_run(runs, key, f"train_{name}", settings, tags), teach)


def _scenes(
    split: Path, shift: Path, match: Path, filter: Path, world: Path, mono: Sequence[Path]
) -> "tuple[list[Scene], list[Scene]]":
    """Scenes with two eyes, and scenes made from one eye."""
    from secondeye.training.samples import load_mono_scenes, load_scenes, mono_films

    kept = train_clips(filter)
    stereo = load_scenes(split, shift, match, world, kept)
    single = load_mono_scenes(split, shift, match, kept, _MONO_SEED)
    height, width = stereo[0].left.shape[-2:]
    return stereo, [*single, *mono_films(mono, height, width, _MONO_SEED)]
