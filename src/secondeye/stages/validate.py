"""The gate of the dataset: Great Expectations over the kept clips. A failed expectation stops the graph."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from secondeye.dataset_report import count_dataset, describe_dataset
from secondeye.files import write_whole
from secondeye.params import Validate
from secondeye.process import alone_in
from secondeye.refusal import Refusal
from secondeye.rows import Bad, Clip, Film, Kept, Rejected, Scored, Shifted
from secondeye.stages.filter import is_split_by_time
from secondeye.tables import read_table

SUITE = Path(__file__).with_name("expectations.json")


def run(
    split: Path, shift: Path, quality: Path, filter: Path, out: Path, reports: Path, *, validate: Validate
) -> None:
    """Write the report (always) and the stamp (only when every expectation holds).

    Raises Refusal naming each expectation that failed and the clips that failed it.
    """
    films = read_table(split / "films.parquet", Film)
    clips = read_table(split / "clips.parquet", Clip)
    shifted = read_table(shift / "shift.parquet", Shifted)
    scored = {row.id: row for row in read_table(quality / "quality.parquet", Scored)}
    kept = read_table(filter / "kept.parquet", Kept)
    rejected = read_table(filter / "rejected.parquet", Rejected)
    with alone_in(out):
        (out / "stamp.json").unlink(missing_ok=True)
        failures = find_failures(expectation_rows(kept, scored, films), validate.min_kept_clips)
        reports.mkdir(parents=True, exist_ok=True)
        counts = count_dataset(films, clips, kept, rejected)
        write_whole(reports / "dataset.json", json.dumps(counts, indent=1, sort_keys=True) + "\n")
        left_out = read_table(split / "films" / "left_out.parquet", Bad)
        report = describe_dataset(
            films, left_out, clips, shifted, list(scored.values()), kept, rejected, failures
        )
        write_whole(reports / "dataset.md", report)
        if failures:
            raise Refusal(f"validate: {'; '.join(failures)}. All of it: {reports / 'dataset.md'}")
        stamp = {"clips": len(kept), "dataset": dataset_hash(kept, scored)}
        write_whole(out / "stamp.json", json.dumps(stamp, sort_keys=True) + "\n")
    print(f"validate: {len(kept)} clips pass; the report is {reports / 'dataset.md'}")


def expectation_rows(kept: list[Kept], scored: dict[str, Scored], films: list[Film]) -> list[dict[str, Any]]:
    """One record a kept clip: what the suite looks at."""
    names = {film.id: film for film in films}
    sides = Counter(film for film, _ in {(row.film, row.split) for row in kept})
    by_time = {film.id for film in films if is_split_by_time(film, len(films))}
    return [
        {
            "id": row.id,
            "split": row.split,
            "film": names[row.film].name,
            "film_in_two_splits": sides[row.film] > 1 and row.film not in by_time,
            "psnr_db": scored[row.id].psnr_db,
            "matched_share": scored[row.id].matched_share,
            "occlusion_share": scored[row.id].occlusion_share,
            "disparity_min_percent": scored[row.id].disparity_min_percent,
            "disparity_max_percent": scored[row.id].disparity_max_percent,
            "width": scored[row.id].width,
        }
        for row in kept
    ]


def find_failures(rows: list[dict[str, Any]], min_kept_clips: int) -> list[str]:
    """Check records against the suite; one readable line for each expectation that failed."""
    if len(rows) < min_kept_clips:  # the suite has nothing to look at in an empty table
        return [f"{len(rows)} clips kept, validate.min_kept_clips is {min_kept_clips}"]
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
    wanted = {"result_format": "COMPLETE", "unexpected_index_column_names": ["id"]}
    result = definition.run(batch_parameters={"dataframe": pd.DataFrame(rows)}, result_format=wanted)
    return [_failure(outcome) for outcome in result.results if not outcome.success]


def _failure(outcome: Any) -> str:
    settings = outcome.expectation_config
    column = settings.kwargs.get("column", "table")
    limits = {k: v for k, v in settings.kwargs.items() if k.endswith(("_value", "_set")) and v is not None}
    clips = [row["id"] for row in outcome.result.get("unexpected_index_list") or []]
    told = f"{column} {settings.type.removeprefix('expect_column_')} {limits or ''}".strip()
    shown = ", ".join(clips[:3]) + (" ..." if len(clips) > 3 else "")
    return f"{told} fails" + (f" for {len(clips)} clips: {shown}" if clips else "")


def dataset_hash(kept: list[Kept], scored: dict[str, Scored]) -> str:
    """What this dataset is: its clips, their split, and the keys of all that made them."""
    lines = sorted(f"{row.id} {row.split} {scored[row.id].key}" for row in kept)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
