"""Samples depend on their number alone: on any number of ranks and workers, in any order of drawing."""

import ctypes
import os
import signal
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import an_optimizer
from torch import Tensor

from secondeye.system.errors import UserError
from secondeye.training.sample_loader import SampleShare, load_micro_batches, worker_count
from secondeye.training.sample_order import (
    BLOCK_SHOTS,
    BUFFER_BLOCKS,
    SampleOrder,
    is_second_kind,
    number_of_kind,
)

OPTIMIZER = an_optimizer(steps=6, batch_size=8, seed=3)


def draw(number: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    return torch.tensor(number), torch.tensor(rng.random())


def refuse(number: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    raise UserError(f"clip {number}: is damaged")


def name_death_signal(number: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    death_signal = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(death_signal))  # PR_GET_PDEATHSIG
    raise UserError(f"clip {number}: {signal.Signals(death_signal.value).name}")


def die_at_the_first(number: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Only one worker dies: torch reports another death while it ends the rest, where none can catch it."""
    if number == 1:
        os._exit(1)
    return draw(number, rng)


def numbers(share: SampleShare, first: int = 0, workers: int = 0) -> list[tuple[int, float]]:
    batches = load_micro_batches(draw, OPTIMIZER, share, first, workers)
    return [(int(n), float(chance)) for batch in batches for n, chance in zip(*batch, strict=True)]


ALONE = SampleShare(batch_size=8, micro_batches=1, rank=0, ranks=1)


@pytest.mark.parametrize(("ranks", "accumulation"), [(1, 4), (2, 1), (2, 2), (4, 2)])
def test_ranks_together_draw_the_samples_of_one(ranks: int, accumulation: int) -> None:
    shares = [SampleShare(8, ranks * accumulation, rank, ranks) for rank in range(ranks)]
    parts = [numbers(share) for share in shares]
    assert {len(part) for part in parts} == {48 // ranks}, "no rank has less to do"
    assert sorted(sample for part in parts for sample in part) == numbers(ALONE)


def test_a_later_start_gives_the_same_samples() -> None:
    assert numbers(ALONE, first=4) == numbers(ALONE)[4 * 8 :]
    assert [n for n, _ in numbers(ALONE)] == list(range(48))
    assert len({chance for _, chance in numbers(ALONE)}) == 48


@pytest.mark.slow(seconds=12)
def test_workers_draw_the_samples_of_one_process_in_its_order() -> None:
    share = SampleShare(8, 4, 1, 2)
    assert numbers(share, workers=2) == numbers(share)
    with pytest.raises(UserError, match=r"^clip 1: SIGKILL$"):  # raised here, and when the parent dies
        list(load_micro_batches(name_death_signal, OPTIMIZER, share, 0, workers=1))
    with pytest.raises(UserError, match=r"was killed, .* fewer: SECONDEYE_LOADER_WORKERS=1"):
        list(load_micro_batches(die_at_the_first, OPTIMIZER, share, 0, workers=2))


def test_an_error_of_a_draw_is_raised_as_it_is() -> None:
    with pytest.raises(UserError, match=r"^clip 0: is damaged$"):
        list(load_micro_batches(refuse, OPTIMIZER, ALONE, 0, workers=0))


def test_the_number_of_workers_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECONDEYE_LOADER_WORKERS", raising=False)
    monkeypatch.setattr("secondeye.training.sample_loader.best_device", lambda: "cpu")
    assert worker_count() == 0
    monkeypatch.setattr("secondeye.training.sample_loader.best_device", lambda: "cuda")
    monkeypatch.setattr("os.cpu_count", lambda: 48)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert worker_count() == 5
    monkeypatch.setenv("SECONDEYE_LOADER_WORKERS", "3")
    assert worker_count() == 3
    monkeypatch.setenv("SECONDEYE_LOADER_WORKERS", "many")
    with pytest.raises(UserError, match="SECONDEYE_LOADER_WORKERS must be a number of processes, got 'many'"):
        worker_count()


def test_an_epoch_visits_every_window_once() -> None:
    windows = np.random.default_rng(0).integers(1, 5, size=3 * BLOCK_SHOTS * BUFFER_BLOCKS + 5).tolist()
    order = SampleOrder(windows, seed=1)
    first, second = ([order.shot(start + n) for n in range(order.length)] for start in (0, order.length))
    assert Counter(first) == Counter(second) == Counter(dict(enumerate(windows))) and first != second
    assert [order.shot(n) for n in range(order.length)] == first, "also after another epoch"
    assert [SampleOrder(windows, seed=2).shot(n) for n in range(order.length)] != first


def test_few_shots_are_in_use_at_a_time() -> None:
    """Samples of a buffer come from its blocks only, so that their shards are read once an epoch."""
    shots = 40 * BLOCK_SHOTS
    order = SampleOrder([2] * shots, seed=0)
    size = 2 * BLOCK_SHOTS * BUFFER_BLOCKS
    blocks = [
        {order.shot(n) // BLOCK_SHOTS for n in range(start, min(start + size, order.length))}
        for start in range(0, order.length, size)
    ]
    assert [len(found) for found in blocks] == [BUFFER_BLOCKS, BUFFER_BLOCKS, 40 - 2 * BUFFER_BLOCKS]
    assert len(set.union(*blocks)) == 40


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.3, 1.0])
def test_kinds_are_spread_evenly_and_counted(share: float) -> None:
    kinds = [is_second_kind(n, share) for n in range(100)]
    assert sum(kinds) == round(100 * share)
    for kind in (False, True):
        found = [number_of_kind(n, share) for n in range(100) if kinds[n] == kind]
        assert found == list(range(len(found)))


def test_the_seed_of_a_training_changes_its_samples() -> None:
    other = load_micro_batches(draw, replace(OPTIMIZER, seed=4), ALONE, 0, 0)
    assert float(next(other)[1][0]) != numbers(ALONE)[0][1]
