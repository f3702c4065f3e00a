"""The evaluation's report: sections for readers, totals for `dvc metrics`, points for `dvc plots`.

Sections are built once; report.document renders them as Markdown, report.html as a page. docs/metrics.md
defines every score.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secondeye.dataset.schema import AggregateScore, EvalClip, Score
from secondeye.evaluation import guardrails
from secondeye.evaluation.aggregate import (
    DIGITS,
    ScoreInterval,
    group_by_film,
    group_by_method,
    mean_score,
    paired_gains,
    round_interval,
    score_interval,
)
from secondeye.evaluation.block_scores import BlocksOf
from secondeye.evaluation.columns import COLUMNS, GROUPS, PRIMARY, Column
from secondeye.evaluation.comparison import (
    CANDIDATE_KINDS,
    PROTOCOLS,
    Protocol,
    candidates,
    compare,
    count_comparisons,
    differs,
    least_films,
    protocol_rows,
)
from secondeye.params import Evaluate
from secondeye.report.document import (
    Bar,
    Bars,
    Bold,
    Image,
    Section,
    Table,
    choose_shown,
    describe_shown,
    to_markdown,
)
from secondeye.report.html import write_page
from secondeye.system.files import write_atomic
from secondeye.system.text import pluralize

ALL_FILMS = "all films"
COMPACT = {  # the few scores that are shown clip by clip and plotted, with their headings
    PRIMARY: COLUMNS[PRIMARY].heading,
    "psnr_disoccluded_db": "PSNR in holes, dB",
    "psnr_db": "PSNR, dB",
    "ssim": "SSIM",
    "epe_px": "EPE, px",
}
_LEARNED = ("lpips", "dists")
_ALIGNED_NOTE = (
    "Each film has a reference of its own: the true right eye, rendered again at the film's strength and "
    "convergence. A weaker film has smaller holes and an easier task, so compare it with the film without "
    "depth below it. Clips of inverted, flat or more than twice as strong depth count as they are, against "
    "the true right eye; their strength is shown."
)
_ARROWS = {"higher": " ↑", "lower": " ↓", "one": " → 1", "": ""}
_REFERENCES = {"truth": "from the film's ground truth", "match": "by matching both eyes"}
_SIBLINGS = {"evaluation.md": "as Markdown", "dataset.html": "the dataset", "gate.md": "the gate"}

Films = Mapping[str, str]  # Film.id -> name
Costs = Mapping[str, tuple[float, float]]  # method -> seconds a frame, peak MiB


def write_reports(
    reports: Path,
    sections: Sequence[Section],
    aggregates: Sequence[AggregateScore],
    points: Sequence[Mapping[str, object]],
) -> None:
    """Write index.html, evaluation.md, and the JSON files of `dvc metrics` and `dvc plots`."""
    write_atomic(reports / "evaluation.md", to_markdown("Evaluation", sections))
    write_page(reports / "index.html", "secondeye: evaluation", sections, _SIBLINGS)
    for name, content in (("evaluation", summarize(aggregates)), ("evaluation_plots", points)):
        write_atomic(reports / f"{name}.json", json.dumps(content, indent=1, sort_keys=True) + "\n")


def build_sections(
    rows: Sequence[Score],
    clips: Sequence[EvalClip],
    films: Films,
    *,
    blocks_of: BlocksOf,
    manifest: str,
    evaluate: Evaluate,
    costs: Costs,
    sheet: Path | None = None,  # the contact sheet
) -> list[Section]:
    """Build the report's sections."""
    sections = [_clips_section(clips, films, manifest, evaluate)]
    sections += [
        protocol_section(protocol, shown, films, blocks_of, evaluate)
        for protocol in PROTOCOLS
        if (shown := protocol_rows(protocol, rows))
    ]
    if sheet is not None:
        caption = (
            "Of each film the clip with the largest disocclusions: outputs, errors, and the disparity that a "
            "matcher finds"
        )
        sections.append(Section("Images", [Image(caption, sheet)]))
    if costs:
        sections.append(Section("Cost", [_cost_table(costs)]))
    note = "All scores of every clip are in `data/evaluate/scores/scores.parquet`."
    return [*sections, clip_section(rows, films, note)]


def summarize(aggregates: Sequence[AggregateScore]) -> dict[str, dict[str, float]]:
    """Return method -> score -> mean, of the few scores that `dvc metrics` shows."""
    means: dict[str, dict[str, float]] = defaultdict(dict)
    for aggregate in aggregates:
        if aggregate.score in COMPACT:
            means[aggregate.method][aggregate.score] = aggregate.mean
    return dict(means)


def plot_points(rows: Sequence[Score], films: Films, evaluate: Evaluate) -> list[dict[str, Any]]:
    """Return a point for each protocol, score, method and film, and one for all films together."""
    points = []
    for protocol in PROTOCOLS:
        for method, scores in group_by_method(protocol_rows(protocol, rows)).items():
            for score in COMPACT:
                values = group_by_film(scores, score)
                groups = {ALL_FILMS: values} | {films.get(f, f): {f: values[f]} for f in values}
                names = {"protocol": protocol.name, "score": score, "method": method}
                points += [
                    {**names, "film": film, **round_interval(score_interval(group, evaluate), DIGITS)}
                    for film, group in groups.items()
                    if group
                ]
    return points


def _clips_section(clips: Sequence[EvalClip], films: Films, manifest: str, evaluate: Evaluate) -> Section:
    count = len({clip.film for clip in clips})
    references = ", ".join(
        f"{_REFERENCES[reference]} ({pluralize(number, 'clip')})"
        for reference, number in sorted(Counter(clip.reference for clip in clips).items())
    )
    scope = (
        f"{pluralize(len(clips), 'clip')} of {pluralize(count, 'held-out film')}, at most "
        f"{pluralize(evaluate.max_frames, 'frame')} each; manifest `{manifest}`. Every film has the same "
        f"weight. In brackets: the interval at confidence {evaluate.confidence:g} from {evaluate.resamples} "
        f"resamples of films and of each film's clips, seed {evaluate.seed}. Verdicts and bold come from a "
        "sign-flip test instead, which is exact for few films."
    )
    if count < evaluate.min_films:
        scope += f" With fewer than {evaluate.min_films} films no method is called better or worse."
    regions = (
        f"Each clip has one region map, the same for every method, found {references}. Pixels of the right "
        "eye are visible (the left eye saw them), disoccluded (something nearer hid them from it), or border "
        "(they are outside its frame)."
    )
    return Section("Evaluated clips", [scope, regions, _region_table(clips, films)])


def _region_table(clips: Sequence[EvalClip], films: Films) -> Table:
    names = ("visible", "disoccluded", "border", "unknown")
    lines = [
        [films.get(clip.film, clip.film), clip.id, clip.reference]
        + [_number(100 * getattr(clip, f"{name}_share"), 2) for name in names]
        for clip in choose_shown(sorted(clips, key=lambda clip: (films.get(clip.film, clip.film), clip.id)))
    ]
    head = ("film", "clip", "reference", *(f"{name}, %" for name in names))
    return Table("Region sizes", head, lines, describe_shown(len(clips)))


def protocol_section(
    protocol: Protocol, rows: Sequence[Score], films: Films, blocks_of: BlocksOf, evaluate: Evaluate
) -> Section:
    """Build the section of a protocol from its scores: verdicts, and a table for each group of scores."""
    methods = _label_partial(group_by_method(rows))
    counts = count_comparisons(methods, protocol.baseline)
    primary = {
        name: score_interval(group_by_film(scores, PRIMARY), evaluate) for name, scores in methods.items()
    }
    bars = [Bar(name, methods[name][0].kind in CANDIDATE_KINDS, *primary[name][:3]) for name in methods]
    parts: list[str | Table | Bars | Image] = [_describe_bold(protocol, methods, counts, evaluate)]
    if any(row.kind == "ceiling" for row in rows):
        parts.append(
            "The VAE round trip is a ceiling for `diffusion` only: holes are filled with the true pixels "
            "after encoding and decoding them with its autoencoder. Other methods may exceed it."
        )
    if any(row.method == "Deep3D" for row in rows):
        parts.append("The rival Deep3D makes the right view itself, which is scored unchanged.")
    if any(row.kind == "external" for row in rows):
        parts.append("External films are scored unchanged, on the clips that they cover.")
    if not protocol.baseline:
        parts.append(_ALIGNED_NOTE)
    parts.append(Bars(f"{COLUMNS[PRIMARY].heading} and its interval", COLUMNS[PRIMARY].digits, bars))
    if protocol.baseline:
        parts.append(_verdict_table(protocol, methods, primary, counts[PRIMARY], films, blocks_of, evaluate))
    tables = [
        _group_table(heading, columns, methods, protocol.baseline, counts, evaluate)
        for heading, columns in GROUPS.items()
    ]
    return Section(protocol.heading, [*parts, *(table for table in tables if table is not None)])


def _describe_bold(
    protocol: Protocol,
    methods: Mapping[str, Sequence[Score]],
    counts: Mapping[str, int],  # as of `count_comparisons`
    evaluate: Evaluate,
) -> str:
    """Return a paragraph on arrows and on what bold means."""
    arrows = "Arrows show which direction is better."
    if not protocol.baseline:
        return f"{arrows} Nothing is bold: references differ from method to method."
    if not candidates(methods, protocol.baseline):
        return f"{arrows} Nothing is bold: there is no method to compare with `{protocol.baseline}`."
    primary, other = counts[PRIMARY], max(counts.values())
    needed = [pluralize(least_films(count, evaluate), "film") for count in (primary, other)]
    return (
        f"{arrows} Bold: differs from `{protocol.baseline}` beyond chance, for better or worse, on the clips "
        "that both have. The p-value of a sign-flip test on the films' mean gains, multiplied by the number "
        f"of comparisons (Bonferroni), is at most {1 - evaluate.confidence:.4g}. "
        f"{COLUMNS[PRIMARY].heading}, which decides, is one of "
        f"{pluralize(primary, 'comparison')} and needs {needed[0]}; any other score is one of {other} and "
        f"needs {needed[1]}. "
        "Baselines and ceilings are not compared."
    )


def _label_partial(methods: dict[str, list[Score]]) -> dict[str, list[Score]]:
    """Append the number of clips to the name of each method that was scored on fewer clips than others."""
    clips = len({row.clip for scores in methods.values() for row in scores})
    return {
        name if len(scores) == clips else f"{name} ({len(scores)} of {clips} clips)": scores
        for name, scores in methods.items()
    }


def _verdict_table(
    protocol: Protocol,
    methods: Mapping[str, Sequence[Score]],
    primary: Mapping[str, ScoreInterval],
    comparisons: int,
    films: Films,
    blocks_of: BlocksOf,
    evaluate: Evaluate,
) -> Table:
    column, lines = COLUMNS[PRIMARY], []
    for name, scores in methods.items():
        kind, gain, p, wins, verdict = scores[0].kind, "-", "-", "-", scores[0].kind
        if name == protocol.baseline:
            verdict = "reference"
        elif protocol.baseline in methods:
            comparison = compare(
                protocol,
                scores,
                methods[protocol.baseline],
                films,
                blocks_of,
                evaluate,
                comparisons=comparisons,
            )
            gain = _interval(comparison.gain, column.digits, sign="+")
            wins = _wins(comparison.wins)
            if kind in CANDIDATE_KINDS:
                verdict, p = comparison.verdict, f"{comparison.p:.3g}"
                gain = Bold(gain) if comparison.beyond_chance else gain
        guarded = [
            _mean(scores, COLUMNS[c]) for c in ("psnr_disoccluded_db", "gradient_ratio", "temporal_error")
        ]
        scored = str(primary[name].films), _interval(primary[name], column.digits)
        lines.append([name, kind, *scored, gain, p, wins, *guarded, verdict])
    head = ["method", "kind", "films", column.heading, f"gain over {protocol.baseline}"]
    head += [
        "corrected p",
        "films won",
        "PSNR in holes, dB",
        "gradient ratio",
        "temporal error, levels",
        "verdict",
    ]
    return Table("Verdicts", head, lines, _describe_guardrails(protocol))


def _describe_guardrails(protocol: Protocol) -> str:
    whole, on_a_film = guardrails.MAX_LOSS_DB, guardrails.MAX_FILM_LOSS_DB
    limits = f"at most {whole:g} dB lost in the whole image, {on_a_film:g} on any film"
    if protocol.inpainting:
        limits += (
            f", {guardrails.MAX_FILM_BORDER_LOSS_DB:g} dB at the border on any film, "
            f"{guardrails.MAX_HOLE_LOSS_DB:g} dB in holes, "
            "a gradient ratio in "
            f"[{guardrails.MIN_GRADIENT_RATIO:g}, {guardrails.MAX_GRADIENT_RATIO:g}], "
            f"at most {guardrails.MAX_TEMPORAL_ERROR_RATIO:g} times the temporal error; "
            f"{guardrails.describe_block_losses()}"
        )
    return (
        f"{COLUMNS[PRIMARY].heading} on crops around disocclusions decides. Guardrails, against "
        f"`{protocol.baseline}` on the same clips: {limits}."
    )


def _group_table(
    heading: str,
    columns: Sequence[Column],
    methods: Mapping[str, Sequence[Score]],
    baseline: str,
    counts: Mapping[str, int],  # as of `count_comparisons`
    evaluate: Evaluate,
) -> Table | None:
    """Build the table of a group of scores, bold beyond chance; None if no method has any."""
    means = {
        column: {name: mean_score(scores, column.name) for name, scores in methods.items()}
        for column in columns
    }
    shown = [column for column in columns if not all(map(math.isnan, means[column].values()))]
    if not shown:
        return None
    lines = []
    bold = {column: _differing(methods, baseline, column.name, counts, evaluate) for column in shown}
    for name in methods:
        cells = {column: _number(means[column][name], column.digits) for column in shown}
        lines.append([name, *(Bold(c) if name in bold[column] else c for column, c in cells.items())])
    missing = [column for column in columns if column not in shown]
    head = ["method", *(f"{column.heading}{_ARROWS[column.better]}" for column in shown)]
    return Table(heading, head, lines, _describe_missing(missing, evaluate))


def _differing(
    methods: Mapping[str, Sequence[Score]],
    baseline: str,
    column: str,
    counts: Mapping[str, int],
    evaluate: Evaluate,
) -> set[str]:
    """Return the methods that differ from the baseline beyond chance in a score that has a direction."""
    if column not in counts:
        return set()
    gains = {
        name: paired_gains(methods[baseline], methods[name], column) for name in candidates(methods, baseline)
    }
    return {name for name, values in gains.items() if differs(values, counts[column], evaluate)}


def _describe_missing(columns: Sequence[Column], evaluate: Evaluate) -> str:
    learned = [c.heading for c in columns if c.name in _LEARNED and not evaluate.vgg_weights]
    others = dict.fromkeys(c.heading for c in columns if c.heading not in learned)
    sentences = []
    if learned:
        sentences.append(f"Without {' and '.join(learned)}: `evaluate.vgg_weights` in params.yaml is empty.")
    if others:
        sentences.append(f"Nothing to score for {', '.join(others)}.")
    return " ".join(sentences)


def _cost_table(costs: Costs) -> Table:
    lines = [[name, _number(seconds, 3), _number(peak, 0)] for name, (seconds, peak) in costs.items()]
    note = "Of synthesising the right eye on this machine; differs from run to run."
    return Table("Time and memory", ("method", "seconds a frame", "peak MiB"), lines, note)


def clip_section(rows: Sequence[Score], films: Films, note: str) -> Section:
    """Build the section with the few scores of every method on every clip."""
    lines = [
        [films.get(row.film, row.film), row.clip, row.method]
        + [_number(getattr(row, name), COLUMNS[name].digits) for name in COMPACT]
        for row in choose_shown(sorted(rows, key=lambda row: (films.get(row.film, row.film), row.clip)))
    ]
    note = " ".join(filter(None, [note, describe_shown(len(rows))]))
    table = Table("Scores", ("film", "clip", "method", *COMPACT.values()), lines, note)
    return Section("Clip by clip", [table])


def _mean(rows: Sequence[Score], column: Column) -> str:
    return _number(mean_score(rows, column.name), column.digits)


def _wins(wins: ScoreInterval) -> str:
    """Format the films won and the interval of their share."""
    if math.isnan(wins.mean):
        return "-"
    return f"{wins.mean * wins.films:g} of {wins.films} ({100 * wins.low:.0f} to {100 * wins.high:.0f} %)"


def _interval(interval: ScoreInterval, digits: int, sign: str = "") -> str:
    if math.isnan(interval.mean):
        return "-"
    mean, low, high = (f"{value:{sign}.{digits}f}" for value in interval[:3])
    return f"{mean} ({low} to {high})"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
