"""What making a right eye costs."""

import time
from pathlib import Path

import pytest
import torch

from secondeye.evaluation.cost import Cost, measure_cost, read_cost, write_cost

MIB = 2**20


def make(mib: int, seconds: float) -> torch.Tensor:
    held = torch.ones(mib * MIB, dtype=torch.uint8)
    time.sleep(seconds)
    return held[:1].clone()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's memory is counted where there is one")
def test_time_and_memory_are_those_of_the_work_alone() -> None:
    make(200, 0)  # what was freed before must not hide what is used again
    made, cost = measure_cost(lambda: make(100, 0.2), 4)
    assert made.tolist() == [1]
    assert 0.05 <= cost.seconds < 0.5
    assert 90 < cost.peak_mib < 130
    assert measure_cost(lambda: make(1, 0.05), 1)[1].peak_mib < 20


def test_a_failure_ends_the_watch() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        measure_cost(fail, 1)


def test_costs_are_kept(tmp_path: Path) -> None:
    write_cost(tmp_path / "cost.json", Cost(0.25, 12.5))
    assert read_cost(tmp_path / "cost.json") == Cost(0.25, 12.5)
