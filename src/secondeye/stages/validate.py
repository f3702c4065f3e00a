"""The gate of the dataset: Great Expectations over the kept clips. A failed expectation stops the graph."""

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from secondeye.dataset.checksums import is_damaged, list_files
from secondeye.dataset.report import (
    Tables,
    count_dataset,
    dataset_sections,
    funnel,
    histograms,
    medians,
    picture_rows,
)
from secondeye.dataset.schema import (
    AcceptedClip,
    Clip,
    ClipQuality,
    Correction,
    FailedItem,
    Film,
    RejectedClip,
    SkippedClip,
)
from secondeye.dataset.stamp import dataset_hash, remove_stamp, write_stamp
from secondeye.dataset.tables import read_table
from secondeye.params import Validate
from secondeye.report.contact_sheet import Tile, blank, write_contact_sheet
from secondeye.report.document import to_markdown
from secondeye.report.html import write_page
from secondeye.stages.filter import is_split_by_time
from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic
from secondeye.system.process import lock_dir
from secondeye.system.text import pluralize

SUITE = Path(__file__).with_name("expectations.json")
_TITLE = "The dataset"
_NO_PICTURES = [[("no clip to show", blank((90, 160)))]]


def run(
    split: Path,
    shift: Path,
    match: Path,
    splat: Path,
    quality: Path,
    filter: Path,
    out: Path,
    reports: Path,
    *,
    validate: Validate,
) -> None:
    """Write the report (always) and the stamp (only when every expectation holds).

    Raises Refusal naming each expectation that failed and the clips that failed it.
    """
    tables = _read_tables(split, shift, quality, filter)
    scored = {row.id: row for row in tables.scored}
    with lock_dir(out):
        remove_stamp(out)
        damaged = count_damaged((split, match, splat, quality))
        failures = find_failures(expectation_rows(tables, damaged, validate), validate.min_accepted_clips)
        pictures = picture_rows(
            quality, replace(tables, scored=[r for r in tables.scored if r.id not in damaged])
        )
        _report(tables, failures, pictures or _NO_PICTURES, reports)
        if failures:
            raise UserError(f"validate: {'; '.join(failures)}. All of it: {reports / 'dataset.md'}")
        write_stamp(out, len(tables.kept), dataset_hash(tables.kept, scored))
    print(f"validate: {pluralize(len(tables.kept), 'clip')} passed; the report is {reports / 'dataset.html'}")


def _read_tables(split: Path, shift: Path, quality: Path, filter: Path) -> Tables:
    return Tables(
        films=read_table(split / "films.parquet", Film),
        left_out=read_table(split / "films" / "skipped_films.parquet", FailedItem),
        dropped=read_table(split / "skipped.parquet", SkippedClip),
        clips=read_table(split / "clips.parquet", Clip),
        shifted=read_table(shift / "shift.parquet", Correction),
        scored=read_table(quality / "quality.parquet", ClipQuality),
        kept=read_table(filter / "accepted.parquet", AcceptedClip),
        rejected=read_table(filter / "rejected.parquet", RejectedClip),
    )


def count_damaged(folders: Sequence[Path]) -> dict[str, int]:
    """Of each clip, how many of its files are gone or not the bytes that their stage wrote."""
    files = [(folder / file.name, file) for folder in folders for file in list_files(folder)]
    shown = tqdm(files, desc="validate", unit="file", mininterval=0.2 if sys.stderr.isatty() else 10.0)
    return Counter(file.id for path, file in shown if is_damaged(path, file))


def _report(
    tables: Tables, failures: Sequence[str], pictures: Sequence[Sequence[Tile]], reports: Path
) -> None:
    reports.mkdir(parents=True, exist_ok=True)
    # The sheet is an out of the stage, so that it is there even where no clip was scored.
    write_contact_sheet(reports / "dataset.png", pictures)
    sections = dataset_sections(tables, failures, reports / "dataset.png" if tables.scored else None)
    write_atomic(reports / "dataset.md", to_markdown(_TITLE, sections))
    write_page(reports / "dataset.html", _TITLE, sections, {"dataset.md": "as Markdown"})
    for name, content in (
        ("dataset.json", count_dataset(tables) | medians(tables)),
        ("dataset_funnel.json", funnel(tables)),
        ("dataset_scores.json", histograms(tables)),
    ):
        write_atomic(reports / name, json.dumps(content, indent=1) + "\n")


def expectation_rows(
    tables: Tables,
    damaged: Mapping[str, int],  # clip -> files of it that are not as they were written
    validate: Validate,
) -> list[dict[str, Any]]:
    """One record a kept clip: what the suite looks at."""
    films = {film.id: film for film in tables.films}
    scored = {row.id: row for row in tables.scored}
    sides = Counter(film for film, _ in {(row.film, row.split) for row in tables.kept})
    by_time = {film.id for film in tables.films if is_split_by_time(film, len(films))}
    unstated = None if validate.require_licences else "not stated"
    return [
        {
            **vars(scored[row.id]),
            "id": row.id,
            "split": row.split,
            "film": films[row.film].name,
            "licence": films[row.film].licence or unstated,
            "film_in_two_splits": sides[row.film] > 1 and row.film not in by_time,
            "damaged_files": damaged.get(row.id, 0),
        }
        for row in tables.kept
    ]


def find_failures(rows: list[dict[str, Any]], min_accepted_clips: int) -> list[str]:
    """Check records against the suite; one readable line for each expectation that failed."""
    if len(rows) < min_accepted_clips:  # the suite has nothing to look at in an empty table
        return [f"{pluralize(len(rows), 'clip')} kept, validate.min_accepted_clips is {min_accepted_clips}"]
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the library is imported, which takes seconds
    import great_expectations as gx
    import pandas as pd
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)  # it takes no time
    suite = context.suites.add(gx.ExpectationSuite(**json.loads(SUITE.read_text())))
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset("kept")
    batch = asset.add_batch_definition_whole_dataframe("all")
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name="kept", data=batch, suite=suite)
    )
    wanted = {"result_format": "COMPLETE", "unexpected_index_column_names": ["id", "film"]}
    result = definition.run(batch_parameters={"dataframe": pd.DataFrame(rows)}, result_format=wanted)
    return [_failure(outcome) for outcome in result.results if not outcome.success]


def _failure(outcome: Any) -> str:
    settings = outcome.expectation_config
    column = settings.kwargs.get("column", "table")
    limits = [v for k, v in settings.kwargs.items() if k.endswith(("_value", "_set")) and v is not None]
    unexpected = outcome.result.get("unexpected_index_list") or []
    clips = [row["id"] for row in unexpected]
    films = sorted({row["film"] for row in unexpected})
    if column == "licence":
        return f"no licence is stated for {', '.join(films)}; add it to sources.csv in data/raw"
    if column == "damaged_files":
        return f"files of {', '.join(clips)} are damaged; delete data/*/ID.* of each and repeat"
    expected = settings.type.removeprefix("expect_column_").replace("_", " ")
    told = f"{column}: {expected} {' and '.join(map(str, limits))}".rstrip()
    shown = ", ".join(clips[:3]) + (" ..." if len(clips) > 3 else "")
    which = f" for {pluralize(len(clips), 'clip')} of {', '.join(films)}: {shown}" if clips else ""
    return f"{told} fails{which}"
