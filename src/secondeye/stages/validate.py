"""Stage `validate`: check the accepted clips with Great Expectations; a failure stops the graph."""

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from secondeye.dataset.checksums import is_intact, list_entries, read_entry
from secondeye.dataset.reader import Dataset
from secondeye.dataset.report import write_dataset_report
from secondeye.dataset.schema import AcceptedClip, ClipQuality
from secondeye.dataset.stamp import remove_stamp, write_stamp
from secondeye.dataset.train_test_split import is_split_by_time
from secondeye.params import Validate
from secondeye.system.errors import UserError
from secondeye.system.process import lock_dir
from secondeye.system.text import pluralize

SUITE = Path(__file__).with_name("expectations.json")
_MAX_NAMES = 100  # of clips or films in a message


def run(data: Path, reports: Path, *, validate: Validate) -> None:
    """Write the report in any case, and the stamp only if all expectations passed.

    Raises UserError that names every failed expectation and the clips that fail it.
    """
    dataset = Dataset(data)
    out = dataset.folder("validate")
    with lock_dir(out):
        remove_stamp(out)
        damaged = count_damaged([dataset.folder(stage) for stage in ("split", "match", "splat", "quality")])
        failures = find_failures(expectation_rows(dataset, damaged, validate), validate.min_accepted_clips)
        write_dataset_report(reports, dataset, failures, damaged)
        if failures:
            raise UserError(f"validate: {'; '.join(failures)}. Full report: {reports / 'dataset.md'}")
        passed = pluralize(len(dataset.rows(AcceptedClip)), "clip")
        write_stamp(out, len(dataset.rows(AcceptedClip)), dataset.hash)
    print(f"validate: {passed} passed; the report is {reports / 'dataset.html'}")


def count_damaged(folders: Sequence[Path]) -> dict[str, int]:
    """Count each clip's files that are missing or differ from what their stage wrote, see `is_intact`."""
    entries = [(folder, name) for folder in folders for name in list_entries(folder)]
    bar = tqdm(entries, desc="validate", unit="entry", mininterval=0.2 if sys.stderr.isatty() else 10.0)
    files = ((folder, file) for folder, name in bar for file in read_entry(folder / name))
    return Counter(file.id for folder, file in files if not is_intact(folder / file.name, file))


def expectation_rows(
    dataset: Dataset,
    damaged: Mapping[str, int],  # clip -> number of damaged files
    validate: Validate,
) -> list[dict[str, Any]]:
    """Return one record for each accepted clip, with the columns that the suite checks."""
    accepted, films = dataset.rows(AcceptedClip), dataset.films
    quality = {row.id: row for row in dataset.rows(ClipQuality)}
    splits = Counter(film for film, _ in {(row.film, row.split) for row in accepted})
    by_time = {film.id for film in films.values() if is_split_by_time(film, len(films))}
    unstated = None if validate.require_licences else "not stated"
    return [
        {
            **vars(quality[row.id]),
            "id": row.id,
            "split": row.split,
            "film": films[row.film].name,
            "licence": films[row.film].licence or unstated,
            "film_in_two_splits": splits[row.film] > 1 and row.film not in by_time,
            "damaged_files": damaged.get(row.id, 0),
        }
        for row in accepted
    ]


def find_failures(rows: list[dict[str, Any]], min_accepted_clips: int) -> list[str]:
    """Check records against the suite; return one line for each failed expectation."""
    if len(rows) < min_accepted_clips:  # expectations pass on an empty table
        return [
            f"{pluralize(len(rows), 'clip')} accepted, validate.min_accepted_clips is {min_accepted_clips}"
        ]
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at import
    import great_expectations as gx
    import pandas as pd
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)  # validation takes under a second
    suite = context.suites.add(gx.ExpectationSuite(**json.loads(SUITE.read_text())))
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset("accepted")
    batch = asset.add_batch_definition_whole_dataframe("all")
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name="accepted", data=batch, suite=suite)
    )
    result_format = {"result_format": "COMPLETE", "unexpected_index_column_names": ["id", "film"]}
    result = definition.run(batch_parameters={"dataframe": pd.DataFrame(rows)}, result_format=result_format)
    return [_failure(outcome) for outcome in result.results if not outcome.success]


def _failure(outcome: Any) -> str:
    """Return one line: what was expected of which column, and the clips and films that fail."""
    config = outcome.expectation_config
    column = config.kwargs["column"]
    unexpected = outcome.result.get("unexpected_index_list") or []
    clips = [row["id"] for row in unexpected]
    films = _join_some(sorted({row["film"] for row in unexpected}))
    if column == "licence":
        return f"no licence is stated for {films}; add it to sources.csv in data/raw"
    if column == "damaged_files":
        return f"files of {_join_some(clips)} are damaged; delete data/*/ID.* of each and run dvc repro"
    if column == "film_in_two_splits":
        return f"{films}: clips of one film are in both splits; run dvc repro --force filter"
    shown = ", ".join(clips[:3]) + (" ..." if len(clips) > 3 else "")
    which = f" in {pluralize(len(clips), 'clip')} of {films}: {shown}" if clips else ""
    return f"{column} {_requirement(config.type, config.kwargs)}, but is not{which}"


def _join_some(names: Sequence[str]) -> str:
    """Join names, at most so many that a message stays readable."""
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


def _requirement(expectation: str, kwargs: Mapping[str, Any]) -> str:
    match expectation.removeprefix("expect_column_values_to_"):
        case "be_unique":
            return "must be unique"
        case "not_be_null":
            return "must not be missing"
        case "be_in_set":
            return f"must be one of {', '.join(map(str, kwargs['value_set']))}"
        case "be_between":
            return f"must be between {kwargs['min_value']} and {kwargs['max_value']}"
    raise ValueError(f"no text for {expectation}")
