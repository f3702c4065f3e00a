from dataclasses import dataclass
from pathlib import Path

import pytest

from secondeye.tables import read_table, write_table


@dataclass(frozen=True)
class Row:
    id: str
    count: int
    share: float
    good: bool


ROWS = [Row("b", 2, 0.5, True), Row("a", 1, 0.25, False)]


def test_rows_come_back_sorted_whatever_their_order_and_as_the_same_bytes(tmp_path: Path) -> None:
    write_table(tmp_path / "one.parquet", ROWS, Row)
    write_table(tmp_path / "two.parquet", ROWS[::-1], Row)
    assert read_table(tmp_path / "one.parquet", Row) == ROWS[::-1]
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_empty_table_keeps_its_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "none.parquet", [], Row)
    assert read_table(tmp_path / "none.parquet", Row) == []


def test_other_columns_are_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Other:
        id: str

    write_table(tmp_path / "one.parquet", ROWS, Row)
    with pytest.raises(TypeError):
        read_table(tmp_path / "one.parquet", Other)
