"""What a training of the diffusion network takes of each GPU and of a machine's memory, part by part.

Weights, gradients, moments and buckets follow from the shapes of the real networks, activations from a step
that is counted on the meta device. See docs/training.md for what of it is measured.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from secondeye.system.errors import UserError
from secondeye.system.text import pluralize

GIB = 2**30
FLOAT_BYTES = 4  # weights, gradients, moments and EMA stay float32 in mixed precision
# Of a GPU, assumed and not measured: CUDA's context, NCCL, workspaces of cuDNN, fragmentation
RESERVE_BYTES = 3 * GIB
DEFAULT_BUCKET_WEIGHTS = 500_000_000  # DeepSpeed's reduce_bucket_size
REMEDY = (
    "shard by DeepSpeed ZeRO-2 with presets/deepspeed_zero2_offload.json, lower height, width or frames, "
    "or set lora_rank in params.yaml; `secondeye model memory` shows what a change brings"
)


@dataclass(frozen=True)
class Setup:
    """How a training is spread over processes, one for each GPU."""

    gpu: bool  # False: trained on the CPU
    ranks: int  # processes, over all machines
    local_ranks: int  # processes of one machine
    workers: int  # of each process, which draw its samples
    sharded: bool  # by DeepSpeed ZeRO-2
    offloaded: bool  # gradients' shards, weights' shards and moments are in the machine's memory
    bucket_bytes: int  # of ZeRO-2, all buckets together


@dataclass(frozen=True)
class Weights:
    """Numbers of weights."""

    trained: int
    frozen: int  # of the network
    other: int  # autoencoder and image encoder


class Part(NamedTuple):
    """What one part of a training takes."""

    name: str
    rank_bytes: int  # of the GPU of each process; on a CPU of each process
    host_bytes: int  # of a machine's memory besides, over all its processes


@dataclass(frozen=True)
class MemoryTable:
    """All parts of a training."""

    setup: Setup
    parts: Sequence[Part]
    program_bytes: int  # that each process takes before it loads anything; in the parts, too

    @property
    def rank_bytes(self) -> int:
        """Bytes of each GPU, or of each process on a CPU."""
        return sum(part.rank_bytes for part in self.parts)

    @property
    def host_bytes(self) -> int:
        """Bytes of a machine's memory, over all its processes."""
        host = sum(part.host_bytes for part in self.parts)
        return host if self.setup.gpu else host + self.setup.local_ranks * self.rank_bytes

    def lines(self) -> list[str]:
        """Return the table as text, in GiB."""
        where = "each GPU" if self.setup.gpu else "each process"
        rows = [(part.name, part.rank_bytes, part.host_bytes) for part in self.parts]
        rows.append(("in all", self.rank_bytes, self.host_bytes))
        return [
            f"{'memory of the training, GiB':40}{where:>14}{'the machine':>14}",
            *(f"{name:40}{_gib(rank):>14}{_gib(host):>14}" for name, rank, host in rows),
        ]


def _gib(count: int) -> str:
    return f"{count / GIB:.1f}" if count else "-"


def read_setup(gpu: bool, workers: int) -> Setup:
    """Return how this process was started, by the variables of torchrun and accelerate."""
    environ = os.environ
    ranks = int(environ.get("WORLD_SIZE", "1"))
    sharded = environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() in ("true", "1")
    config = Path(environ["ACCELERATE_DEEPSPEED_CONFIG_FILE"]) if sharded else None
    return make_setup(gpu, ranks, int(environ.get("LOCAL_WORLD_SIZE", "1")), workers, config)


def make_setup(
    gpu: bool,
    ranks: int,
    local_ranks: int,
    workers: int,
    deepspeed: Path | None,  # DeepSpeed's config; None: every process has all of the optimizer's state
) -> Setup:
    """Return a setup. Raises UserError if DeepSpeed's config cannot be read."""
    if deepspeed is None:
        return Setup(gpu, ranks, local_ranks, workers, sharded=False, offloaded=False, bucket_bytes=0)
    try:
        zero = json.loads(deepspeed.read_text())["zero_optimization"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{deepspeed}: no config of DeepSpeed's ZeRO ({error}); name another file") from error
    buckets = 2 if zero.get("overlap_comm", False) else 1
    return Setup(
        gpu,
        ranks,
        local_ranks,
        workers,
        sharded=True,
        offloaded=zero.get("offload_optimizer", {}).get("device", "none") != "none",
        bucket_bytes=buckets * FLOAT_BYTES * int(zero.get("reduce_bucket_size", DEFAULT_BUCKET_WEIGHTS)),
    )


def require_fit(table: MemoryTable, free_gpu_bytes: int | None, free_host_bytes: int | None) -> None:
    """Raise UserError, one line with what to change, if a training does not fit into what is free.

    None: is not compared.
    """
    if free_gpu_bytes is not None and table.rank_bytes > free_gpu_bytes:
        raise UserError(
            f"train_diffusion: takes {_gib(table.rank_bytes)} GiB of each GPU, {_gib(free_gpu_bytes)} GiB "
            f"are free; {REMEDY}"
        )
    if free_host_bytes is not None and table.host_bytes > free_host_bytes:
        ranks = pluralize(table.setup.local_ranks, "process", "processes")
        raise UserError(
            f"train_diffusion: {ranks} on this machine take {_gib(table.host_bytes)} GiB of its memory, "
            f"{_gib(free_host_bytes)} GiB are free; start fewer, lower SECONDEYE_LOADER_WORKERS, or {REMEDY}"
        )


def make_table(
    weights: Weights,
    step_bytes: int,  # of a forward and a backward pass, see `step_memory`
    sample_bytes: int,  # of the samples of one process in a step, as they are drawn
    ema: bool,
    setup: Setup,
) -> MemoryTable:
    """Compute the parts of a training."""
    trained, frozen, other = (FLOAT_BYTES * n for n in (weights.trained, weights.frozen, weights.other))
    share = -(-trained // setup.ranks)  # of one process
    gradients, moments, buckets, offloaded = trained, 2 * trained, trained * (setup.ranks > 1), 0
    if setup.sharded:  # gradients are sharded, and flattened once more for the step; weights have a shard
        gradients, moments, buckets = 2 * share, 3 * share, setup.bucket_bytes
    if setup.offloaded:
        gradients, moments, offloaded = 0, 0, 4 * share * setup.local_ranks
    main_ema = trained * ema
    program: int = psutil.Process().memory_info().rss
    loaded = setup.local_ranks * (trained + frozen + other)
    drawing = setup.local_ranks * setup.workers * (program + 3 * sample_bytes)
    saved = 3 * trained  # weights and moments, copied from the GPU of the main process
    parts = [
        Part("weights that are trained", trained, 0),
        Part("frozen weights of the network", frozen, 0),
        Part("autoencoder and image encoder", other, 0),
        Part("gradients", gradients, 0),
        Part("moments of AdamW", moments, offloaded),
        Part("buckets of gradients", buckets, 0),
        Part("activations and latents of a step", max(step_bytes, moments // 2), 0),
    ]
    if setup.gpu:
        later = drawing + 2 * main_ema + saved + offloaded
        parts += [
            Part("CUDA, NCCL and fragmentation (assumed)", RESERVE_BYTES, 0),
            Part("EMA, with a copy of the weights", 0, 2 * main_ema),
            Part("programs", 0, setup.local_ranks * program),
            Part("workers that draw samples", 0, drawing),
            Part("a checkpoint while it is written", 0, saved),
            # They are freed before the rest is taken.
            Part("weights as they are loaded, beyond this", 0, max(0, loaded - later)),
        ]
    else:
        parts += [
            Part("EMA", 0, main_ema),
            Part("program", program, 0),
            Part("workers that draw samples", 0, drawing),
        ]
    return MemoryTable(setup, parts, program)
