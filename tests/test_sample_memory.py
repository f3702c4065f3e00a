"""Memory of the sample pipeline does not grow with the dataset, and is bounded at the paper's size."""

import subprocess
import sys
from pathlib import Path

import pytest
import training_samples

MAX_MIB = 2048  # beside the model


def peaks(data: Path, clips: int, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """Return the peak memory of a training process and of its worker, MiB."""
    monkeypatch.setattr(training_samples, "FRAMES", 30)
    training_samples.write_dataset(data, training_samples.SIZES["paper"], clips)
    script = str(training_samples.__file__)
    command = [sys.executable, script, "--child", "paper", str(data), "--workers", "1", "--samples", "2"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    training, worker = done.stdout.splitlines()[-1].rstrip("| ").split(" | ")[-2:]
    return float(training), float(worker)


@pytest.mark.slow(seconds=90)
def test_memory_is_that_of_a_few_samples_however_long_the_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples of 25x576x1024, of 2.4 seconds and of 40 minutes of film."""
    short, long = (peaks(tmp_path / str(clips), clips, monkeypatch) for clips in (2, 2000))
    assert max(short) < MAX_MIB and max(long) < MAX_MIB
    for before, now in zip(short, long, strict=True):
        assert now < 1.15 * before, (short, long)
