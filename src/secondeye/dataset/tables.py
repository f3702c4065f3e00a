"""Read and write tables: one Parquet file per table, one frozen dataclass per row, sorted by id."""

from collections.abc import Sequence
from dataclasses import asdict, fields
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

    schema = pa.schema([(field.name, _TYPES[field.type]) for field in fields(row_type)])  # type: ignore[arg-type,index]
    records = sorted((asdict(row) for row in rows), key=lambda record: [str(v) for v in record.values()])  # type: ignore[call-overload]
    with atomic_path(path) as part:
        pq.write_table(pa.Table.from_pylist(records, schema=schema), part)


def read_table(path: Path, row_type: type[Row]) -> list[Row]:
    """Read every row. Raises UserError if the table is missing or its columns differ from `row_type`."""
    table = _read(path)
    if set(table.column_names) != {field.name for field in fields(row_type)}:  # type: ignore[arg-type]
        raise UserError(f"{path}: was written by another version; delete it and run dvc repro")
    return [row_type(**record) for record in table.to_pylist()]


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
