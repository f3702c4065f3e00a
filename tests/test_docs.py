"""docs/metrics.md defines every score there is, and names every sabotage with what catches it."""

import re
from pathlib import Path

import pytest
from sabotage import CAUGHT_BY

from secondeye.evaluation.columns import COLUMNS

TEXT = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text()
HEADINGS = re.findall(r"^### (.*)$", TEXT, re.M)


@pytest.mark.parametrize("column", COLUMNS)
def test_every_score_is_defined(column: str) -> None:
    stem = re.sub(r"_(visible|disoccluded|border)(_db)?$", r"\2", column)
    assert any(f"`{name}`" in heading for heading in HEADINGS for name in (column, stem)), column


@pytest.mark.parametrize("name", CAUGHT_BY)
def test_every_sabotage_is_told_with_what_catches_it(name: str) -> None:
    (line,) = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", TEXT, re.M)
    assert tuple(re.findall(r"`(\w+)`", line)) == CAUGHT_BY[name]
