"""Memory of a training of the diffusion network: estimates for several GPUs, and their check on this CPU.

    python benchmarks/training_memory.py table      # computed: the paper preset on 80, 40 and 24 GB
    python benchmarks/training_memory.py check      # measured: steps of tiny and small beside the estimate

A step is measured by the peak of the process's resident memory in it, less that before. Gradients and moments
are there before, as in all steps but the first.
"""

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from secondeye.params import TrainDiffusion, apply_preset, load_params
from secondeye.system.memory import return_freed_arrays
from secondeye.training.diffusion import freeze_modules, make_loss
from secondeye.training.diffusion_memory import estimate_memory, estimate_step
from secondeye.training.initial_weights import make_pipeline
from secondeye.training.memory_table import GIB, make_setup

PROJECT = Path(__file__).parent.parent
ZERO2, OFFLOAD = (PROJECT / f"presets/deepspeed_zero2{end}.json" for end in ("", "_offload"))
GPUS, WORKERS = 8, 8
MIB = 2**20


def load_preset(name: str) -> TrainDiffusion:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text((PROJECT / "params.yaml").read_text())
        apply_preset(PROJECT / "presets" / f"{name}.yaml", path)
        return load_params(path).train_diffusion


def print_table() -> None:
    """Print the needs of each GPU and of the machine for crops, sharding and LoRA."""
    paper = load_preset("paper")
    print("| sample | sharding | LoRA | GPU, GiB | activations | machine, GiB |\n|---|---|---|---|---|---|")
    for frames, height, width in (
        (25, 576, 1024),
        (14, 576, 1024),
        (25, 448, 768),
        (25, 320, 576),
        (14, 320, 576),
    ):
        for label, config in (("none", None), ("ZeRO-2", ZERO2), ("ZeRO-2, offload", OFFLOAD)):
            for rank in (0, 16):
                if rank and config is not None:
                    continue
                sized = replace(paper, frames=frames, height=height, width=width, lora_rank=rank)
                table = estimate_memory(sized, make_setup(True, GPUS, GPUS, WORKERS, config))
                step = next(part.rank_bytes for part in table.parts if part.name.startswith("activations"))
                figures = f"{table.rank_bytes / GIB:.1f} | {step / GIB:.1f} | {table.host_bytes / GIB:.0f}"
                print(f"| {frames}x{height}x{width} | {label} | {rank or 'no'} | {figures} |", flush=True)


def print_check() -> None:
    """Print the measured and the estimated peak of steps."""
    print("| network | sample | batch | measured, MiB | estimated | ratio |\n|---|---|---|---|---|---|")
    for preset, frames, height, width, clips in (
        ("laptop", 6, 64, 128, 2),
        ("laptop", 6, 128, 256, 2),
        ("laptop", 12, 128, 256, 2),
        ("small", 6, 128, 256, 1),
        ("small", 14, 128, 256, 1),
        ("small", 14, 256, 448, 1),
    ):
        given = [preset, *map(str, (frames, height, width, clips))]
        done = subprocess.run(
            [sys.executable, __file__, "step", *given], check=True, capture_output=True, text=True
        )
        measured, estimated = map(int, done.stdout.split()[-2:])
        name = "tiny" if preset == "laptop" else preset
        figures = f"{measured / MIB:.0f} | {estimated / MIB:.0f} | {measured / estimated:.2f}"
        print(f"| {name} | {frames}x{height}x{width} | {clips} | {figures} |", flush=True)


def measure_step(preset: str, frames: int, height: int, width: int, clips: int) -> None:
    """Print the peak of a step in bytes, measured and estimated."""
    return_freed_arrays()
    given = load_preset(preset)
    network = replace(given.network, batch_size=clips, gradient_accumulation_steps=1, precision="float32")
    settings = replace(given, frames=frames, height=height, width=width, network=network)
    pipeline = make_pipeline(settings)
    freeze_modules(pipeline, settings)
    pipeline.unet.train()
    loss = make_loss(pipeline, settings)
    optimizer = torch.optim.AdamW(pipeline.unet.parameters())

    def step(height: int, width: int) -> None:
        planes = tuple(
            torch.randint(0, 255, (clips, frames, c, height, width), dtype=torch.uint8) for c in (3, 3, 1, 3)
        )
        loss(pipeline.unet, planes)[0].backward()

    step(64, 64)  # loads kernels, allocates gradients
    optimizer.step()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    step(height, width)
    print(_status("VmHWM") - before, estimate_step(settings, clips))


def _status(name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def main() -> None:
    match sys.argv[1:]:
        case ["table"]:
            print_table()
        case ["check"]:
            print_check()
        case ["step", preset, *sizes]:
            measure_step(preset, *map(int, sizes))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
