"""The memory of a training of the diffusion network: estimated, printed and compared with what is free."""

import torch
from accelerate import PartialState, init_empty_weights

from secondeye.inpaint.module_checks import IN_CHANNELS, ONE_STEP_CHANNELS
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.svd_shapes import make_svd_shapes
from secondeye.inpaint.tiny import make_small, make_tiny
from secondeye.params import TrainDiffusion
from secondeye.system.memory import free_memory_bytes
from secondeye.system.process import best_device, is_main_process
from secondeye.training.conditioning import ClipBatch
from secondeye.training.diffusion import freeze_modules, make_loss
from secondeye.training.memory_table import MemoryTable, Setup, Weights, make_table, read_setup, require_fit
from secondeye.training.sample_loader import worker_count
from secondeye.training.step_memory import step_bytes

_META = torch.device("meta")


def require_memory(settings: TrainDiffusion) -> None:
    """Print the memory that this training takes, before any of it is taken.

    All processes of a machine are counted, and none loads anything before all have checked. Raises UserError
    if a GPU or the machine has less.
    """
    gpu = best_device() == "cuda"
    workers = 0 if settings.cached_samples else worker_count()
    free_host = free_memory_bytes()
    state = PartialState(cpu=not gpu)  # chooses the GPU of this process
    table = estimate_memory(settings, read_setup(gpu, workers))
    if is_main_process():
        print("\n".join(table.lines()), flush=True)
    taken = table.setup.local_ranks * table.program_bytes  # no longer free, and in the table
    require_fit(table, torch.cuda.mem_get_info()[0] if gpu else None, free_host + taken)
    state.wait_for_everyone()


def estimate_memory(settings: TrainDiffusion, setup: Setup) -> MemoryTable:
    """Estimate the memory of a training without allocating anything."""
    pipeline = _make_shapes(settings)
    network, *others = pipeline.unet, pipeline.vae, pipeline.image_encoder
    trained = sum(each.numel() for each in network.parameters() if each.requires_grad)
    parts = setup.ranks * settings.network.gradient_accumulation_steps
    clips = max(1, settings.network.batch_size // parts)
    return make_table(
        Weights(trained, _count(network) - trained, sum(map(_count, others))),
        _step_bytes(pipeline, settings, clips),
        sum(plane.nbytes for plane in _make_sample(pipeline, settings, clips)),
        settings.network.ema_decay > 0,
        setup,
    )


def estimate_step(
    settings: TrainDiffusion,
    clips: int,  # of one process at a time
) -> int:
    """Return the bytes that a forward and a backward pass take besides weights and gradients."""
    return _step_bytes(_make_shapes(settings), settings, clips)


def _step_bytes(pipeline: StereoInpaintPipeline, settings: TrainDiffusion, clips: int) -> int:
    network = pipeline.unet.train()
    for each in network.parameters():
        if each.requires_grad:
            each.grad = torch.empty_like(each)  # exists before
    loss, sample = make_loss(pipeline, settings), _make_sample(pipeline, settings, clips)
    return step_bytes(lambda net: loss(net, sample)[0], network, settings.network.precision)


def _count(module: torch.nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


def _make_shapes(settings: TrainDiffusion) -> StereoInpaintPipeline:
    channels = ONE_STEP_CHANNELS if settings.method == "one_step" else IN_CHANNELS
    make = {"tiny": make_tiny, "small": make_small, "svd": make_svd_shapes}[settings.size]
    with init_empty_weights():
        pipeline = make(settings.frames, channels)
    for module in (pipeline.vae, pipeline.image_encoder, pipeline.unet):
        module.to(_META)  # buffers
    freeze_modules(pipeline, settings)
    return pipeline


def _make_sample(
    pipeline: StereoInpaintPipeline, settings: TrainDiffusion, clips: int
) -> tuple[torch.Tensor, ...]:
    """Return the stacked samples of one micro-batch, as they are drawn."""
    height, width = settings.height, settings.width
    lead = (clips, settings.frames)
    if not settings.cached_samples:
        planes = (
            torch.empty(*lead, channels, height, width, dtype=torch.uint8, device=_META)
            for channels in (3, 3, 1, 3)
        )
        return ClipBatch(*planes)
    latents = [torch.empty(*lead, channels, height // 8, width // 8, device=_META) for channels in (4, 4, 1)]
    embedding = torch.empty(clips, 1, pipeline.unet.config.cross_attention_dim, device=_META)
    return (*latents, embedding, torch.empty(clips, 3, device=_META))
