"""Train the network of the diffusion inpainter on the clips, the synthetic shots and the monocular films."""

from pathlib import Path

from secondeye.dataset.reader import Dataset
from secondeye.params import TrainDiffusion
from secondeye.run_folder import Run, finish_model, make_run_key, open_run
from secondeye.system.files import hash_weights
from secondeye.training.provenance import hash_inpaint_inputs, join_inpaint_licences


def run(data: Path, autoencoder: Path, out: Path, runs: Path, *, train_diffusion: TrainDiffusion) -> None:
    """Write the model to `out`, training its network in `runs` unless a run with its key is finished."""
    dataset = Dataset(data)
    pretrained, licences = _pretrained_inputs(train_diffusion)
    inputs = hash_inpaint_inputs(dataset, train_diffusion.conditioning) | pretrained
    inputs |= {"autoencoder": hash_weights(autoencoder)}
    key = make_run_key("secondeye.training.diffusion", [train_diffusion], inputs)
    tags = inputs | {"dataset": dataset.validated_hash, "licences": join_inpaint_licences(dataset, licences)}

    def train(run: Run) -> None:
        from secondeye.training import diffusion
        from secondeye.training.diffusion_memory import require_memory

        require_memory(train_diffusion)
        diffusion.train(run, data, autoencoder, train_diffusion)

    finish_model(out, open_run(runs, key, "train_diffusion", train_diffusion, tags), train)


def _pretrained_inputs(settings: TrainDiffusion) -> tuple[dict[str, str], list[str]]:
    """Return the hashes and licences of pretrained weights."""
    if not (settings.pretrained or settings.vgg_weights):
        return {}, []
    from secondeye.training.initial_weights import hash_pretrained

    names = [name for name in (settings.pretrained, settings.vgg_weights) if name]
    return hash_pretrained(settings), [f"licence of {name}" for name in names]
