"""Read and write tables: one Parquet file per table, one frozen dataclass per row, sorted by id."""

from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from secondeye.system.errors import UserError
from secondeye.system.files import atomic_path

Row = TypeVar("Row")

_TYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}  # Arrow's names


def write_table(path: Path, rows: Sequence[Row], row_type: type[Row]) -> None:
    """Write rows sorted by `id`, then by the other columns; the same rows give the same bytes."""
    # Imported here because it starts a thread, which would be a hazard where processes are forked.
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [field.name for field in fields(row_type)]  # type: ignore[arg-type]
    schema = pa.schema([(field.name, _TYPES[field.type]) for field in fields(row_type)])  # type: ignore[arg-type,index]
    cells = attrgetter(*names)
    by_id = sorted(rows, key=attrgetter(names[0]))
    if any(first == second for first, second in pairwise(map(attrgetter(names[0]), by_id))):
        by_id.sort(key=lambda row: [str(cell) for cell in cells(row)])
    # Column by column: a dictionary for each row would take as much memory again as the rows.
    columns = [pa.array(map(attrgetter(field.name), by_id), field.type) for field in schema]
    with atomic_path(path) as part:
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), part)


def read_table(path: Path, row_type: type[Row]) -> list[Row]:
    """Read every row. Raises UserError if the table is missing or its columns differ from `row_type`."""
    table = _read(path)
    names = [field.name for field in fields(row_type)]  # type: ignore[arg-type]
    if set(table.column_names) != set(names):
        raise UserError(f"{path}: was written by another version; delete it and run dvc repro")
    return list(map(row_type, *(table.column(name).to_pylist() for name in names)))


def read_columns(path: Path) -> dict[str, list[Any]]:
    """Read the columns of a table of any row type. Raises UserError if the table is missing."""
    columns: dict[str, list[Any]] = _read(path).to_pydict()
    return columns


def _read(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: not found; run dvc repro")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:  # which of them depends on where the file is damaged
        raise UserError(f"{path}: is damaged; delete it and run dvc repro") from error
