"""Time and memory of a function call."""

import time
from pathlib import Path

import pytest
import torch

from secondeye.evaluation.cost import Cost, measure_cost, read_cost, write_cost

MIB = 2**20


def make(mib: int, seconds: float) -> torch.Tensor:
    block = torch.ones(mib * MIB, dtype=torch.uint8)
    time.sleep(seconds)
    return block[:1].clone()


@pytest.mark.skipif(torch.cuda.is_available(), reason="GPU memory is counted instead")
def test_cost_excludes_what_was_allocated_before() -> None:
    make(200, 0)  # freed memory that is reused must still be counted
    made, cost = measure_cost(lambda: make(100, 0.2), 4)
    assert made.tolist() == [1]
    assert 0.05 <= cost.seconds < 0.5
    assert 90 < cost.peak_mib < 130
    assert measure_cost(lambda: make(1, 0.05), 1)[1].peak_mib < 20


def test_an_exception_stops_the_memory_sampling() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        measure_cost(fail, 1)


def test_a_cost_is_written_and_read(tmp_path: Path) -> None:
    write_cost(tmp_path / "cost.json", Cost(0.25, 12.5))
    assert read_cost(tmp_path / "cost.json") == Cost(0.25, 12.5)
