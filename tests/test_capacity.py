"""What `doctor` says about memory."""

import pytest

from secondeye.inpaint.plan import GIB
from secondeye.maintenance import capacity


def rows(free_gib: float, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(capacity, "free_bytes", lambda device: int(free_gib / capacity.FREE_SHARE * GIB))
    return capacity.describe_diffusion("cuda")[1:]


def test_large_memory_takes_every_size_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    plenty = rows(70, monkeypatch)
    assert all("full size" in row and "windows of 25 frames" in row for row in plenty)
    assert "2x2 tiles" in plenty[1]


def test_less_memory_gives_smaller_sizes_and_none_gives_light(monkeypatch: pytest.MonkeyPatch) -> None:
    weights_gib = capacity.released_network("cuda").memory.weight_bytes / GIB
    assert 4.3 < weights_gib < 4.5  # 3.05 + 1.26 GB in half precision, 0.39 GB in single
    assert "full size" not in rows(weights_gib + 3, monkeypatch)[3]
    assert all("does not fit" in row for row in rows(weights_gib, monkeypatch))
