"""Memory of the sample pipeline does not grow with the dataset, and is bounded at the paper's size."""

import subprocess
import sys
from pathlib import Path

import pytest
import training_samples

MAX_MIB = 2048  # beside the model


def peaks(data: Path) -> tuple[float, float]:
    """Return the peak memory of a training process and of its worker, MiB."""
    script = str(training_samples.__file__)
    command = [sys.executable, script, "--child", "paper", str(data), "--workers", "1", "--samples", "1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    training, worker = done.stdout.splitlines()[-1].rstrip("| ").split(" | ")[-2:]
    return float(training), float(worker)


@pytest.mark.slow(seconds=50)
def test_memory_is_that_of_a_few_samples_however_long_the_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples of 25x576x1024, of two hours of film: 0.15 MiB kept of each clip would be too much."""
    monkeypatch.setattr(training_samples, "FRAMES", 30)
    training_samples.write_dataset(tmp_path, training_samples.SIZES["paper"], 6000)
    assert max(peaks(tmp_path)) < MAX_MIB
