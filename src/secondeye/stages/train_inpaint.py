"""Train both inpainters on the stereo clips, the synthetic shots and the monocular films."""

from pathlib import Path

from secondeye.dataset.reader import Dataset
from secondeye.params import TrainDiffusion, TrainInpaint
from secondeye.run_folder import Run, finish_model, make_run_key, open_run
from secondeye.sources import list_mono_films
from secondeye.training.provenance import hash_inputs, hash_mono, hash_splats, join_licences


def run(data: Path, out: Path, runs: Path, *, train_inpaint: TrainInpaint) -> None:
    """Write light/ and diffusion/ to `out`, training each in `runs` unless its run is finished."""
    dataset = Dataset(data)
    mono = list_mono_films(dataset.folder("raw"))
    inputs = hash_inputs(dataset) | {"mono": hash_mono(mono)}
    licences = [film.licence for film in mono]

    def train_light(run: Run) -> None:
        from secondeye.training import light

        light.train(run, data, train_inpaint.light)

    def train_diffusion(run: Run) -> None:
        from secondeye.training import diffusion

        diffusion.train(run, data, train_inpaint.diffusion)

    pretrained, pretrained_licences = _pretrained_inputs(train_inpaint.diffusion)
    splats = {"splats": hash_splats(dataset)} if train_inpaint.diffusion.conditioning == "splat" else {}
    for name, settings, train, own_inputs, own_licences in (
        ("light", train_inpaint.light, train_light, inputs, licences),
        (
            "diffusion",
            train_inpaint.diffusion,
            train_diffusion,
            inputs | pretrained | splats,
            licences + pretrained_licences,
        ),
    ):
        key = make_run_key(f"secondeye.training.{name}", [settings], own_inputs)
        tags = own_inputs | {
            "dataset": dataset.validated_hash,
            "licences": join_licences(dataset, own_licences),
        }
        finish_model(out / name, open_run(runs, key, f"train_{name}", settings, tags), train)


def _pretrained_inputs(settings: TrainDiffusion) -> tuple[dict[str, str], list[str]]:
    """Return the hashes and licences of pretrained weights."""
    if not (settings.pretrained or settings.vgg_weights):
        return {}, []
    from secondeye.training.diffusion import hash_pretrained

    names = [name for name in (settings.pretrained, settings.vgg_weights) if name]
    return hash_pretrained(settings), [f"licence of {name}" for name in names]
