"""What the scores say: a report for people, numbers for `dvc metrics` and points for `dvc plots`.

The report is made once as sections of tables; report.document writes them as Markdown, evaluation.page as
HTML. docs/metrics.md defines every score.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secondeye.dataset.schema import AggregateScore, EvalClip, Score
from secondeye.evaluation import guardrails
from secondeye.evaluation.aggregate import (
    ScoreInterval,
    best_of,
    by_film,
    by_method,
    estimate,
    mean_of_films,
    rounded,
)
from secondeye.evaluation.columns import COLUMNS, GROUPS, PRIMARY, Column
from secondeye.evaluation.comparison import MIN_FILMS, PROTOCOLS, RIVALS, Protocol, compare, rows_of
from secondeye.params import Evaluate
from secondeye.report.document import Bar, Bars, Bold, Picture, Section, Table
from secondeye.system.text import pluralize

ALL_FILMS = "all films"
COMPACT = {  # the few scores that are given clip by clip and plotted
    PRIMARY: COLUMNS[PRIMARY].heading,
    "psnr_disoccluded_db": "PSNR in holes, dB",
    "psnr_db": "PSNR, dB",
    "ssim": "SSIM",
    "epe_px": "EPE, px",
}
_LEARNED = ("lpips", "dists")
_ARROWS = {"more": " ↑", "less": " ↓", "one": " → 1", "": ""}  # which way is better
_DIGITS = 4  # of numbers for tools

Films = Mapping[str, str]  # Film.id -> name
Costs = Mapping[str, tuple[float, float]]  # method -> seconds a frame, peak MiB


def sections(
    rows: Sequence[Score],
    held: Sequence[EvalClip],
    films: Films,
    *,
    manifest: str,
    evaluate: Evaluate,
    costs: Costs,
    sheet: Path | None = None,  # the sheet of pictures
) -> list[Section]:
    """The report, for any of its forms."""
    found = [_judged(held, films, manifest, evaluate)]
    found += [_protocol(p, rows_of(p, rows), evaluate) for p in PROTOCOLS if rows_of(p, rows)]
    if sheet is not None:
        caption = (
            "The clip of each film with most to paint: what methods made, its error, what a matcher finds"
        )
        found.append(Section("Pictures", [Picture(caption, sheet)]))
    if costs:
        found.append(Section("Cost", [_cost_table(costs)]))
    return [*found, Section("Clip by clip", [_clip_table(rows, films)])]


def totals(rows: Sequence[Score], evaluate: Evaluate) -> list[AggregateScore]:
    """Every score of every method over films, with its interval; none where nothing was scored."""
    return [
        AggregateScore(f"{method} {score}", method, found[0].kind, score, films=estimated.films, **numbers)
        for method, found in by_method(rows).items()
        for score in COLUMNS
        if (estimated := estimate(by_film(found, score), evaluate)).films
        for numbers in [rounded(estimated, _DIGITS)]
    ]


def summary(found: Sequence[AggregateScore]) -> dict[str, dict[str, float]]:
    """Method -> score -> mean, of the few scores that `dvc metrics` has room for."""
    means: dict[str, dict[str, float]] = defaultdict(dict)
    for total in found:
        if total.score in COMPACT:
            means[total.method][total.score] = total.mean
    return dict(means)


def plot_points(rows: Sequence[Score], films: Films, evaluate: Evaluate) -> list[dict[str, Any]]:
    """One row a protocol, score and method for all films together, and one for each film by itself."""
    points = []
    for protocol in PROTOCOLS:
        for method, found in by_method(rows_of(protocol, rows)).items():
            for score in COMPACT:
                values = by_film(found, score)
                groups = {ALL_FILMS: values} | {films.get(f, f): {f: values[f]} for f in values}
                names = {"protocol": protocol.name, "score": score, "method": method}
                points += [
                    {**names, "film": film, **rounded(estimate(group, evaluate), _DIGITS)}
                    for film, group in groups.items()
                    if group
                ]
    return points


def _judged(held: Sequence[EvalClip], films: Films, manifest: str, evaluate: Evaluate) -> Section:
    count, references = len({row.film for row in held}), Counter(row.reference for row in held)
    doubt = f" With fewer than {MIN_FILMS} films no method is called better or worse." * (count < MIN_FILMS)
    told = {"truth": "by the film's exact truth", "match": "by matching both eyes"}
    words = ", ".join(
        f"{told.get(name, name)} ({pluralize(n, 'clip')})" for name, n in sorted(references.items())
    )
    return Section(
        "What was judged",
        [
            f"{pluralize(len(held), 'clip')} of {pluralize(count, 'held-out film')}, at most "
            f"{pluralize(evaluate.max_frames, 'frame')} each; manifest `{manifest}`. Every film counts once. "
            f"In brackets, the interval at confidence {evaluate.confidence:g}: {evaluate.resamples} "
            f"resamples of films, then of each film's clips, seed {evaluate.seed}.{doubt}",
            f"The regions are one frozen map per clip, the same for every method, found {words}. They are "
            "pixels that the left eye saw (visible), that something nearer hid from it (disoccluded), that "
            "lay beyond its frame (border).",
            _region_table(held, films),
        ],
    )


def _region_table(held: Sequence[EvalClip], films: Films) -> Table:
    names = ("visible", "disoccluded", "border", "unknown")
    lines = [
        [films.get(row.film, row.film), row.id, row.reference]
        + [_number(100 * getattr(row, f"{name}_share"), 2) for name in names]
        for row in sorted(held, key=lambda row: (films.get(row.film, row.film), row.id))
    ]
    head = ("film", "clip", "reference", *(f"{name}, %" for name in names))
    return Table("Sizes of the regions", head, lines, "")


def _protocol(protocol: Protocol, rows: Sequence[Score], evaluate: Evaluate) -> Section:
    methods = _named(by_method(rows))
    primary = {name: estimate(by_film(found, PRIMARY), evaluate) for name, found in methods.items()}
    bars = [Bar(name, methods[name][0].kind in RIVALS, *primary[name][:3]) for name in methods]
    parts: list[str | Table | Bars | Picture] = [
        "Arrows say which way is better; bold is the best rival, floors and ceilings aside."
    ]
    if any(row.kind == "ceiling" for row in rows):
        parts.append(
            "The VAE round trip is the ceiling of `diffusion` alone: holes painted with the truth itself, as "
            "its autoencoder gives it back. Others may surpass it."
        )
    if any(row.kind == "external" for row in rows):
        parts.append(
            "External films are judged as they are; on films that they do not cover they have no score."
        )
    parts += [
        Bars(f"{COLUMNS[PRIMARY].heading} and its interval", COLUMNS[PRIMARY].digits, bars),
        _verdict_table(protocol, methods, primary, evaluate),
    ]
    tables = [_group_table(heading, columns, methods, evaluate) for heading, columns in GROUPS.items()]
    return Section(protocol.heading, [*parts, *(table for table in tables if table is not None)])


def _named(methods: dict[str, list[Score]]) -> dict[str, list[Score]]:
    """Who was judged on fewer clips than others says so wherever its name stands."""
    clips = len({row.clip for found in methods.values() for row in found})
    return {
        name if len(found) == clips else f"{name} ({len(found)} of {clips} clips)": found
        for name, found in methods.items()
    }


def _verdict_table(
    protocol: Protocol,
    methods: Mapping[str, Sequence[Score]],
    primary: Mapping[str, ScoreInterval],
    evaluate: Evaluate,
) -> Table:
    column, lines = COLUMNS[PRIMARY], []
    for name, found in methods.items():
        kind, gain = found[0].kind, "-"
        word = "baseline" if name == protocol.baseline else kind
        if name != protocol.baseline and protocol.baseline in methods:
            verdict = compare(protocol, found, methods[protocol.baseline], evaluate)
            gain = _spread(verdict.gain, column.digits, sign="+")
            word = verdict.word if kind in RIVALS else kind
        watched = [
            _mean(found, COLUMNS[c]) for c in ("psnr_disoccluded_db", "gradient_ratio", "temporal_error")
        ]
        films = str(primary[name].films)
        lines.append([name, kind, films, _spread(primary[name], column.digits), gain, *watched, word])
    head = ["method", "kind", "films", column.heading, f"gain over {protocol.baseline}"]
    head += ["PSNR in holes, dB", "gradient ratio", "temporal error, levels", "verdict"]
    return Table("Verdicts", head, lines, _floors_in_words(protocol))


def _floors_in_words(protocol: Protocol) -> str:
    whole = f"at most {guardrails.LOST_DB:g} dB lost in the whole picture"
    holes = (
        f", {guardrails.LOST_HOLE_DB:g} dB in holes, a gradient ratio in "
        f"[{guardrails.LEAST_GRADIENT_RATIO:g}, {guardrails.MOST_GRADIENT_RATIO:g}], "
        f"at most {guardrails.MORE_TEMPORAL_ERROR:g} times the temporal error"
    )
    return (
        f"{COLUMNS[PRIMARY].heading} on crops around disocclusions decides. Floors, against "
        f"`{protocol.baseline}` on the same clips: {whole}{holes * protocol.painting}."
    )


def _group_table(
    heading: str,
    columns: Sequence[Column],
    methods: Mapping[str, Sequence[Score]],
    evaluate: Evaluate,
) -> Table | None:
    """The means of a group of scores, the best rival's in bold; None where nobody has any."""
    means = {
        column: {name: mean_of_films(found, column.name) for name, found in methods.items()}
        for column in columns
    }
    shown = [column for column in columns if not all(map(math.isnan, means[column].values()))]
    if not shown:
        return None
    most = max(map(len, methods.values()))  # means over other clips do not compare
    rivals = [name for name, found in methods.items() if found[0].kind in RIVALS and len(found) == most]
    cells = {column: _emphasised(means[column], rivals, column) for column in shown}
    lines = [[name, *(cells[column][name] for column in shown)] for name in methods]
    missing = [column for column in columns if column not in shown]
    head = ["method", *(f"{column.heading}{_ARROWS[column.better]}" for column in shown)]
    return Table(heading, head, lines, _missing_in_words(missing, evaluate))


def _emphasised(means: Mapping[str, float], rivals: Sequence[str], column: Column) -> dict[str, str]:
    """A column's cells; those of the best rivals are bold, unless all are as good."""
    cells = {name: _number(value, column.digits) for name, value in means.items()}
    seen = [round(means[name], column.digits) for name in rivals if not math.isnan(means[name])]
    best = best_of(seen, column.name) if len(set(seen)) > 1 else math.nan
    bold = {name for name in rivals if round(means[name], column.digits) == best}
    return {name: Bold(cell) if name in bold else cell for name, cell in cells.items()}


def _missing_in_words(columns: Sequence[Column], evaluate: Evaluate) -> str:
    learned = [c.heading for c in columns if c.name in _LEARNED and not evaluate.vgg_weights]
    other = dict.fromkeys(c.heading for c in columns if c.heading not in learned)
    said = [
        f"Without {' and '.join(learned)}: no weights named in params.yaml, `evaluate.vgg_weights`."
    ] * bool(learned)
    return " ".join(said + [f"Nothing was to score for {', '.join(other)}."] * bool(other))


def _cost_table(costs: Costs) -> Table:
    lines = [[name, _number(seconds, 3), _number(peak, 0)] for name, (seconds, peak) in costs.items()]
    note = "Of making the right eye, on the machine that ran this; not the same from run to run."
    return Table("Time and memory", ("method", "seconds a frame", "peak MiB"), lines, note)


def _clip_table(rows: Sequence[Score], films: Films) -> Table:
    lines = [
        [films.get(row.film, row.film), row.clip, row.method]
        + [_number(getattr(row, name), COLUMNS[name].digits) for name in COMPACT]
        for row in sorted(rows, key=lambda row: (films.get(row.film, row.film), row.clip))
    ]
    note = "Every score of every clip is in `data/evaluate/scores/scores.parquet`."
    return Table("Scores", ("film", "clip", "method", *COMPACT.values()), lines, note)


def _mean(rows: Sequence[Score], column: Column) -> str:
    return _number(mean_of_films(rows, column.name), column.digits)


def _spread(estimate: ScoreInterval, digits: int, sign: str = "") -> str:
    if math.isnan(estimate.mean):
        return "-"
    mean, low, high = (f"{value:{sign}.{digits}f}" for value in estimate[:3])
    return f"{mean} ({low} to {high})"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
