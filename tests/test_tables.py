from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from secondeye.dataset.tables import read_columns, read_table, write_table
from secondeye.system.errors import UserError


@dataclass(frozen=True)
class Row:
    id: str
    count: int
    share: float
    good: bool


ROWS = [Row("b", 2, 0.5, True), Row("a", 1, 0.25, False)]


def test_rows_are_sorted_and_any_order_gives_the_same_bytes(tmp_path: Path) -> None:
    write_table(tmp_path / "one.parquet", ROWS, Row)
    write_table(tmp_path / "two.parquet", ROWS[::-1], Row)
    assert read_table(tmp_path / "one.parquet", Row) == ROWS[::-1]
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_an_empty_table_keeps_its_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "none.parquet", [], Row)
    assert read_table(tmp_path / "none.parquet", Row) == []


def test_other_columns_are_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Other:
        id: str

    write_table(tmp_path / "one.parquet", ROWS, Row)
    with pytest.raises(UserError, match=r"one\.parquet: was written by another version; delete it"):
        read_table(tmp_path / "one.parquet", Other)


@pytest.mark.parametrize("kept", [0, 40, -20])
def test_missing_and_damaged_tables_are_one_line(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "one.parquet"
    for read in (partial(read_table, row_type=Row), read_columns):
        with pytest.raises(UserError, match=r"one\.parquet: not found; run dvc repro"):
            read(path)
    write_table(path, ROWS, Row)
    path.write_bytes(path.read_bytes()[:kept])
    for read in (partial(read_table, row_type=Row), read_columns):
        with pytest.raises(UserError, match=r"one\.parquet: is damaged; delete it and run dvc repro"):
            read(path)
