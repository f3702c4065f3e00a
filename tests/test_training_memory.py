"""The memory of a training, estimated before it starts; gradient checkpoints and LoRA, which lower it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import PROJECT, load_preset
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor
from typer.testing import CliRunner

from secondeye.cli import app
from secondeye.inpaint.gradient_checkpoints import enable_gradient_checkpoints
from secondeye.inpaint.tiny import make_network
from secondeye.params import TrainDiffusion
from secondeye.system.errors import UserError
from secondeye.training import diffusion_memory
from secondeye.training.diffusion_memory import require_memory
from secondeye.training.memory_table import (
    GIB,
    MemoryTable,
    Setup,
    Weights,
    make_setup,
    make_table,
    require_fit,
)
from secondeye.training.step_memory import LiveTensors, step_bytes

ALONE = Setup(gpu=True, ranks=1, local_ranks=1, workers=0, sharded=False, offloaded=False, bucket_bytes=0)
EIGHT = replace(ALONE, ranks=8, local_ranks=8)
OPTIMIZER_PARTS = ("gradients", "moments of AdamW", "buckets of gradients")
ZERO2 = PROJECT / "presets" / "deepspeed_zero2.json"
TABLE_WEIGHTS = Weights(trained=1000, frozen=500, other=100)


def table_of(setup: Setup, ema: bool = True) -> MemoryTable:
    return make_table(TABLE_WEIGHTS, step_bytes=10**6, sample_bytes=0, ema=ema, setup=setup)


def parts_of(table: MemoryTable, column: str = "rank_bytes") -> dict[str, int]:
    return {part.name: getattr(part, column) for part in table.parts}


@pytest.fixture
def paper(tmp_path: Path) -> TrainDiffusion:
    return load_preset("paper", tmp_path).train_diffusion


def test_live_tensors_are_counted_until_nothing_refers_to_them() -> None:
    x = torch.empty(1000, device="meta")  # 4000 bytes, made before
    with LiveTensors() as live:
        y = x + 1
        view = y[:10]
        assert live.bytes == 4000
        z = y * 2
        del y
        assert live.bytes == 8000, "a view keeps its storage"
        del view
        assert live.bytes == 4000
        del z
    assert (live.bytes, live.peak_bytes) == (0, 8000)


def test_activations_that_are_kept_are_part_of_a_step() -> None:
    network = torch.nn.Linear(4, 1000, bias=False).to("meta")
    network.weight.grad = torch.empty_like(network.weight)
    given = torch.empty(50, 4, device="meta")
    # the exponential, which is kept, and the gradient of the layer's output, beside what makes it
    found = step_bytes(lambda net: net(given).exp().sum(), network, "float32")
    array = 50 * 1000 * 4
    assert 2 * array < found < 3 * array + 20_000


def test_half_precision_halves_what_is_kept() -> None:
    network = torch.nn.Sequential(*(torch.nn.Linear(64, 64, bias=False) for _ in range(32))).to("meta")
    given = torch.empty(10**5, 64, device="meta")

    def loss(net: torch.nn.Module) -> Tensor:
        return net(given).float().square().mean()

    whole, half = (step_bytes(loss, network, precision) for precision in ("float32", "bfloat16"))
    assert 0.5 < half / whole < 0.6  # the loss stays float32


def test_sharding_divides_and_offloading_moves() -> None:
    shares = parts_of(table_of(replace(EIGHT, sharded=True, bucket_bytes=64)))
    assert (shares["gradients"], shares["moments of AdamW"], shares["buckets of gradients"]) == (
        1000,
        1500,
        64,
    )
    whole = parts_of(table_of(EIGHT))
    assert (whole["gradients"], whole["moments of AdamW"], whole["buckets of gradients"]) == (
        4000,
        8000,
        4000,
    )
    assert parts_of(table_of(ALONE))["buckets of gradients"] == 0
    offloaded = table_of(replace(EIGHT, sharded=True, offloaded=True, bucket_bytes=64))
    assert parts_of(offloaded)["gradients"] == parts_of(offloaded)["moments of AdamW"] == 0
    assert parts_of(offloaded, "host_bytes")["moments of AdamW"] == 4 * 4000


def test_the_average_takes_no_gpu_and_one_place_on_the_machine() -> None:
    with_ema, without = table_of(EIGHT), table_of(EIGHT, ema=False)
    assert with_ema.rank_bytes == without.rank_bytes
    assert parts_of(with_ema, "host_bytes")["EMA, with a copy of the weights"] == 2 * 4000


def test_all_processes_of_a_machine_are_counted() -> None:
    """Eight processes do not each have the whole machine."""
    processes = replace(EIGHT, gpu=False)
    one, eight = table_of(replace(ALONE, gpu=False), ema=False), table_of(processes, ema=False)
    assert eight.host_bytes == 8 * (one.host_bytes + 4000)  # and each has a bucket
    require_fit(one, None, one.host_bytes)
    with pytest.raises(UserError, match=r"8 processes on this machine take .* are free; .*ZeRO-2.*lora_rank"):
        require_fit(eight, None, eight.host_bytes - 1)


def test_the_table_adds_up() -> None:
    table = table_of(EIGHT)
    assert table.rank_bytes == sum(parts_of(table).values())
    require_fit(table, table.rank_bytes, table.host_bytes)
    with pytest.raises(UserError, match=r"of each GPU, .* are free; shard by DeepSpeed"):
        require_fit(table, table.rank_bytes - 1, table.host_bytes)
    assert table.lines()[-1].split()[-2:] == [f"{n / GIB:.1f}" for n in (table.rank_bytes, table.host_bytes)]


@pytest.mark.slow(seconds=15)
def test_paper_preset_fits_80_and_40_gib_and_says_so_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the command line; sizes are those of Stable Video Diffusion's published weights."""
    load_preset("paper", tmp_path)
    monkeypatch.chdir(tmp_path)
    given = [
        "model",
        "memory",
        "--gpus",
        "8",
        "--deepspeed",
        str(PROJECT / "presets" / "deepspeed_zero2.json"),
    ]
    done = CliRunner().invoke(app, [*given, "--gpu-gib", "39"])
    assert done.exit_code == 0, done.output
    rows = {line[:40].strip(): line[40:].split() for line in done.output.splitlines()}
    assert rows["weights that are trained"][0] == f"{863_964_036 * 4 / GIB:.1f}"
    refused = CliRunner().invoke(app, [*given, "--gpu-gib", "24"])
    assert isinstance(refused.exception, UserError) and "\n" not in str(refused.exception)


def test_a_start_without_enough_memory_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    laptop = load_preset("laptop", tmp_path).train_diffusion
    require_memory(laptop)
    assert "activations and latents of a step" in capsys.readouterr().out
    monkeypatch.setattr(diffusion_memory, "free_memory_bytes", lambda: 0)
    with pytest.raises(UserError, match="train_diffusion: 1 process on this machine"):
        require_memory(laptop)


def test_deepspeed_configs_are_read(tmp_path: Path) -> None:
    plain, offload = ZERO2, ZERO2.with_name("deepspeed_zero2_offload.json")
    assert not make_setup(True, 8, 8, 0, plain).offloaded
    assert make_setup(True, 8, 8, 0, offload).offloaded
    assert make_setup(True, 8, 8, 0, plain).bucket_bytes == 2 * 4 * 50_000_000
    (tmp_path / "other.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match="no config of DeepSpeed's ZeRO"):
        make_setup(True, 8, 8, 0, tmp_path / "other.json")


def a_gradient(change: Callable[[UNetSpatioTemporalConditionModel], None]) -> list[Tensor]:
    torch.manual_seed(0)
    network = make_network(2, 9, (64, 64), sample_size=8).train()
    change(network)
    torch.manual_seed(1)
    noisy, embedding, ids = torch.randn(1, 2, 9, 8, 8), torch.randn(1, 1, 32), torch.rand(1, 3)
    network(noisy, torch.tensor(0.5), embedding, ids).sample.square().mean().backward()
    return [weights.grad for weights in network.parameters() if weights.grad is not None]


def test_gradient_checkpoints_change_no_bit_of_the_gradient() -> None:
    for plain, again in zip(a_gradient(lambda _: None), a_gradient(enable_gradient_checkpoints), strict=True):
        assert torch.equal(plain, again)


def test_gradient_checkpoints_keep_a_third_of_what_diffusers_own_keep(paper: TrainDiffusion) -> None:
    def held(enable: Callable[[UNetSpatioTemporalConditionModel], None]) -> int:
        with torch.device("meta"):
            network = make_network(8, 9, (64, 128, 128), sample_size=8).to("meta").train()
            given = torch.empty(1, 8, 9, 64, 64), torch.empty(()), torch.empty(1, 1, 32), torch.empty(1, 3)
        enable(network)
        live = LiveTensors()
        with live:
            output = network(*given).sample
        del output
        return live.peak_bytes

    ours, theirs = held(enable_gradient_checkpoints), held(lambda net: net.enable_gradient_checkpointing())
    assert ours < 0.6 * theirs
