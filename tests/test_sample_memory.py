"""Memory of the sample pipeline does not grow with the dataset, and is bounded at the paper's size."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import training_samples

from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import ClipDisparity

MAX_MIB = 2048  # beside the model


def peaks(data: Path) -> tuple[float, float]:
    """Return the peak memory of a training process and of its worker, MiB."""
    script = str(training_samples.__file__)
    command = [sys.executable, script, "--child", "paper", str(data), "--workers", "1", "--samples", "1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    training, worker = done.stdout.splitlines()[-1].rstrip("| ").split(" | ")[-2:]
    return float(training), float(worker)


@pytest.mark.slow(seconds=70)
def test_memory_is_that_of_a_few_samples_however_long_the_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples of 25x576x1024, of 2.4 seconds and of 40 minutes of film."""
    monkeypatch.setattr(training_samples, "FRAMES", 30)
    size, folders = training_samples.SIZES["paper"], (tmp_path / "short", tmp_path / "long")
    training_samples.write_dataset(folders[0], size, 2)
    monkeypatch.setattr(training_samples, "write_clip", partial(link_clip, Dataset(folders[0])))
    training_samples.write_dataset(folders[1], size, 2000)
    short, long = map(peaks, folders)
    assert max(short) < MAX_MIB and max(long) < MAX_MIB
    for before, now in zip(short, long, strict=True):
        assert now < 1.15 * before, (short, long)


def link_clip(written: Dataset, dataset: Dataset, name: str, size: training_samples.Size) -> float:
    """Link a clip that is written, instead of writing an equal one."""
    for path in written.root.glob(f"*/{name}*"):
        os.link(path, dataset.root / path.relative_to(written.root))
    (row, _) = written.rows(ClipDisparity)
    return row.offset_px
