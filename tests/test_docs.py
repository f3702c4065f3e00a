"""docs/metrics.md defines every score there is, and names every sabotage with what catches it."""

import re
from pathlib import Path

import pytest
from sabotage import CAUGHT_BY, scores_of

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
    cells = re.findall(r"`(\w+)` ([-.\de]+), ([-.\de]+)", line)
    assert tuple(column for column, _, _ in cells) == CAUGHT_BY[name]
    for column, honest, spoilt in cells:
        assert float(honest) == pytest.approx(scores_of("honest")[column], rel=0.02, abs=0.005), column
        assert float(spoilt) == pytest.approx(scores_of(name)[column], rel=0.02, abs=0.005), column
