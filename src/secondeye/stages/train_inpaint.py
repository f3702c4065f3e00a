"""Both inpainters, taught by stereo clips, the synthetic synthetic, and films with one eye."""

from pathlib import Path

from secondeye.dataset.stamp import read_stamp
from secondeye.params import TrainDiffusion, TrainInpaint
from secondeye.run_folder import Run, finish_model, make_run_key, open_run
from secondeye.sources import list_mono_films
from secondeye.training.provenance import hash_mono, inputs_of, licences_of


def run(
    raw: Path,
    split: Path,
    shift: Path,
    match: Path,
    filter: Path,
    validate: Path,
    synthetic: Path,
    out: Path,
    runs: Path,
    *,
    train_inpaint: TrainInpaint,
) -> None:
    """Have `out` hold light/ and diffusion/, each trained in `runs` unless it was before."""
    mono = list_mono_films(raw)
    inputs = inputs_of(match, filter, synthetic) | {"mono": hash_mono(mono)}
    licences = [film.licence for film in mono]
    dataset = read_stamp(validate)
    folders = (raw, split, shift, match, filter, synthetic)

    def teach_light(run: Run) -> None:
        from secondeye.training import light

        light.train(run, folders, train_inpaint.light)

    def teach_diffusion(run: Run) -> None:
        from secondeye.training import diffusion

        diffusion.train(run, folders, train_inpaint.diffusion)

    foreign, their_licences = _foreign_of(train_inpaint.diffusion)
    for name, settings, teach, own_inputs, own_licences in (
        ("light", train_inpaint.light, teach_light, inputs, licences),
        ("diffusion", train_inpaint.diffusion, teach_diffusion, inputs | foreign, licences + their_licences),
    ):
        key = make_run_key(f"secondeye.training.{name}", [settings], own_inputs)
        tags = own_inputs | {"dataset": dataset, "licences": licences_of(split, filter, own_licences)}
        finish_model(out / name, open_run(runs, key, f"train_{name}", settings, tags), teach)


def _foreign_of(settings: TrainDiffusion) -> tuple[dict[str, str], list[str]]:
    """Inputs and licences besides the dataset's: those of weights that others trained."""
    if not (settings.pretrained or settings.vgg_weights):
        return {}, []
    from secondeye.training.diffusion import foreign_weights

    names = [name for name in (settings.pretrained, settings.vgg_weights) if name]
    return foreign_weights(settings), [f"licence of {name}" for name in names]
