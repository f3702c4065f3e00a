"""Tables: one Parquet file, one frozen dataclass, sorted by id."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from secondeye.files import arriving

Row = TypeVar("Row")

_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def write_table(path: Path, rows: Sequence[Row], row_type: type[Row]) -> None:
    """Write rows sorted by their `id` (then by all they hold); the same rows give the same bytes."""
    schema = pa.schema([(field.name, _TYPES[field.type]) for field in fields(row_type)])  # type: ignore[arg-type,index]
    records = sorted((asdict(row) for row in rows), key=lambda record: [str(v) for v in record.values()])  # type: ignore[call-overload]
    with arriving(path) as part:
        pq.write_table(pa.Table.from_pylist(records, schema=schema), part)


def read_table(path: Path, row_type: type[Row]) -> list[Row]:
    """Read every row; raises TypeError when the columns are not those of `row_type`."""
    return [row_type(**record) for record in pq.read_table(path).to_pylist()]


def read_columns(path: Path) -> dict[str, list[Any]]:
    """Each column of a table, whatever its row type was when it was written."""
    columns: dict[str, list[Any]] = pq.read_table(path).to_pydict()
    return columns
