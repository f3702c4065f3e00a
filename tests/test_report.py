"""Reports: verdicts on known scores, the same cells as Markdown and HTML, and contact sheets."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import eval_clip, score_row

from secondeye.dataset.schema import Score
from secondeye.evaluation.aggregate import aggregate_scores, group_by_film, mean_score, paired_gains
from secondeye.evaluation.block_scores import Blocks
from secondeye.evaluation.columns import COLUMNS
from secondeye.evaluation.comparison import PROTOCOLS, compare, differs, least_films
from secondeye.evaluation.figures import clip_rows, select_clips
from secondeye.evaluation.regions import BORDER, DISOCCLUDED, UNKNOWN, VISIBLE
from secondeye.evaluation.report import (
    COMPACT,
    build_sections,
    plot_points,
    summarize,
)
from secondeye.params import Evaluate, load_params
from secondeye.report.contact_sheet import (
    disparity_map,
    error_map,
    frame_to_image,
    read_image,
    write_contact_sheet,
    write_image,
)
from secondeye.report.document import Bar, Bars, Bold, Section, Table, to_markdown
from secondeye.report.html import write_page

EVALUATE = load_params(Path(__file__).parent.parent / "params.yaml").evaluate
EVALUATE = replace(EVALUATE, resamples=200, confidence=0.9, seed=0, vgg_weights="", max_frames=8, min_films=5)
GUARDED = {"psnr_disoccluded_db": 20.0, "gradient_ratio": 0.9, "temporal_error": 5.0, "psnr_db": 30.0}
ODD = "z|b <i> & *c* __d__ [e](f) `g`.mp4"


def scores_of(method: str, kind: str, haarpsi: list[float], **scores: float) -> list[Score]:
    """Return scores of one clip for each film."""
    return [
        score_row(f"clip{n}", f"film{n}", method, kind, haarpsi=value, **(GUARDED | scores))
        for n, value in enumerate(haarpsi)
    ]


FILL = scores_of("fill", "inpainter", [0.5] * 5)


def all_kinds() -> list[Score]:
    """Return scores of every kind of method."""
    return [
        *scores_of("identity", "baseline", [0.1] * 5),
        *FILL,
        *scores_of("light", "inpainter", [0.6] * 5, psnr_db=30.5, gradient_ratio=1.05),
        *scores_of("ceiling", "ceiling", [0.9] * 5, psnr_db=40.0),
        *scores_of("motion + shipped light", "model", [0.4] * 5, disparity_error_percent=1.0),
        *scores_of("student + shipped light", "model", [0.3] * 5, disparity_error_percent=0.5),
    ]


def no_blocks(row: Score) -> Blocks:
    return {}


def report_of(rows: list[Score], evaluate: Evaluate = EVALUATE, **options: object) -> str:
    clips = {row.clip: row.film for row in rows}
    eval_clips = [eval_clip(clip, film) for clip, film in clips.items()]
    films = {film: f"{film}.mp4" for film in clips.values()} | {"film0": ODD}
    settings = {"costs": {}} | options
    sections = build_sections(
        rows, eval_clips, films, blocks_of=no_blocks, manifest="m", evaluate=evaluate, **settings
    )
    return to_markdown("Evaluation", sections)


def tables_of(markdown: str) -> dict[str, list[list[str]]]:
    """Return section and table heading -> rows of cells without escapes, the header first."""
    found: dict[str, list[list[str]]] = {}
    section = table = ""
    for line in markdown.splitlines():
        if line.startswith("## "):
            section = line[3:]
        if line.startswith("### "):
            table = line[4:]
        if line.startswith("| ") and "---" not in line:
            cells = re.split(r"(?<!\\)\|", line.removeprefix("|").removesuffix("|"))
            plain = [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in cells]
            found.setdefault(f"{section}: {table}", []).append(plain)
    return found


def table(markdown: str, words: str, number: int = 0) -> list[dict[str, str]]:
    """Return the rows of one of the tables with these words in their headings."""
    head, *lines = [found for heading, found in tables_of(markdown).items() if words in heading][number]
    return [dict(zip(head, line, strict=True)) for line in lines]


class Reader(HTMLParser):
    """Collect tables and addresses; fail on unclosed tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("line", "circle")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += f"**{data}**" if self.open[-1] == "b" else data


@pytest.mark.parametrize(
    ("scores", "changes", "verdict"),
    [
        ([0.6] * 5, {}, "better"),
        ([0.4] * 5, {}, "worse"),
        ([0.6, 0.4, 0.6, 0.4, 0.55], {}, "no difference"),
        ([0.6, 0.4, 0.6, 0.4, 0.45], {}, "no difference"),
        ([0.5] * 5, {}, "no difference"),
        ([0.9] * 4, {}, "insufficient evidence"),
        ([0.9] * 4, {"gradient_ratio": 9.0}, "insufficient evidence"),
        ([0.9] * 4 + [math.nan], {}, "insufficient evidence"),
        ([0.6] * 5, {"psnr_disoccluded_db": 19.0}, "violates a guardrail: holes lose 1.00 dB"),
        (
            [0.6] * 5,
            {"gradient_ratio": 0.5},
            "violates a guardrail: the gradient ratio in holes, 0.50, is outside",
        ),
        (
            [0.6] * 5,
            {"temporal_error": 5.6},
            "violates a guardrail: the temporal error in holes is 5.60 levels",
        ),
        ([0.6] * 5, {"psnr_db": 29.9}, "violates a guardrail: the whole image loses 0.10 dB"),
        (
            [0.4] * 5,
            {"gradient_ratio": 1.5},
            "violates a guardrail: the gradient ratio in holes, 1.50, is outside",
        ),
    ],
)
def test_verdicts(scores: list[float], changes: dict[str, float], verdict: str) -> None:
    rows = [*FILL[: len(scores)], *scores_of("light", "inpainter", scores, **changes)]
    comparison = compare(
        PROTOCOLS[0], rows[len(scores) :], rows[: len(scores)], {}, no_blocks, EVALUATE, comparisons=1
    )
    assert comparison.verdict.startswith(verdict)
    line = next(line for line in table(report_of(rows), "Verdicts") if line["method"] == "light")
    assert line["verdict"].startswith(verdict)


def test_verdict_table_has_gains_and_intervals() -> None:
    fill, light = table(report_of([*FILL, *scores_of("light", "inpainter", [0.6] * 5)]), "Verdicts")
    assert (fill["verdict"], fill["gain over fill"]) == ("reference", "-")
    assert light["HaarPSI"] == "0.6000 (0.6000 to 0.6000)"
    assert light["gain over fill"] == "**+0.1000 (+0.1000 to +0.1000)**"
    assert (fill["corrected p"], light["corrected p"]) == ("-", "0.0625")
    assert (fill["films won"], light["films won"]) == ("-", "5 of 5 (100 to 100 %)")
    assert (light["films"], light["PSNR in holes, dB"], light["gradient ratio"]) == ("5", "20.00", "0.900")


def test_one_film_is_insufficient_evidence() -> None:
    markdown = report_of([*FILL[:1], *scores_of("light", "inpainter", [0.9])])
    assert table(markdown, "Verdicts")[1]["verdict"] == "insufficient evidence"
    assert "With fewer than 5 films" in markdown
    assert "With fewer than" not in report_of(all_kinds())


def test_baselines_and_ceilings_get_no_verdict() -> None:
    lines = table(report_of(all_kinds()), "Verdicts")
    assert [line["verdict"] for line in lines] == ["baseline", "reference", "better", "ceiling"]


def test_each_protocol_has_its_own_methods_and_baseline() -> None:
    shift = scores_of("best shift", "baseline", [0.2] * 5)
    rows = [*all_kinds(), *shift, *scores_of("Telea", "baseline", [0.2] * 5)]
    markdown = report_of(rows)
    inpainting, whole = (table(markdown, f"{name}: ") for name in ("Inpaint-only", "End-to-end"))
    assert [line["method"] for line in inpainting] == [
        *("identity", "fill", "light", "ceiling", "best shift", "Telea")
    ]
    assert [line["method"] for line in whole] == [
        "identity",
        "motion + shipped light",
        "student + shipped light",
        "best shift",
    ]
    assert whole[2]["verdict"] == "worse"
    assert whole[2]["gain over motion + shipped light"].startswith("**-0.1000")
    assert "End-to-end" not in report_of([row for row in rows if row.kind != "model"])


def test_external_films_are_compared_on_the_clips_they_cover() -> None:
    baseline = scores_of("motion + shipped light", "model", [0.5] * 6)
    baseline[5] = replace(baseline[5], haarpsi=0.9, psnr_disoccluded_db=90.0)  # not covered
    rows = [*baseline, *scores_of("elsewhere", "external", [0.6] * 5)]
    line = table(report_of(rows), "Verdicts")[1]
    assert (line["films"], line["verdict"]) == ("5", "better")
    assert "External films" in report_of(rows)


def test_without_the_baseline_there_is_no_verdict() -> None:
    (line,) = table(report_of(scores_of("light", "inpainter", [0.6] * 5)), "Verdicts")
    assert (line["gain over fill"], line["verdict"]) == ("-", "inpainter")


def test_scores_are_sorted_by_film() -> None:
    assert list(group_by_film(FILL[::-1], "haarpsi")) == [f"film{n}" for n in range(5)]


@pytest.mark.parametrize(
    ("column", "theirs", "ours", "gain"),
    [
        ("psnr_db", 30, 32, 2),
        ("temporal_error", 5, 4, 1),
        ("gradient_ratio", 0.7, 1.2, 0.1),
        ("gradient_ratio", 1.1, 0.8, -0.1),
    ],
)
def test_gains_are_paired_by_clip_and_positive_if_better(
    column: str, theirs: float, ours: float, gain: float
) -> None:
    before = [score_row("a", "f", "m", **{column: theirs}), score_row("b", "f", "m", **{column: 1.0})]
    after = [score_row("c", "g", "n", **{column: 1.0}), score_row("a", "f", "n", **{column: ours})]
    gains = paired_gains(before, [*after, score_row("b", "f", "n")], column)
    assert gains == {"f": [pytest.approx(gain)]}


def bold_cells(rows: list[Score], evaluate: Evaluate = EVALUATE) -> set[tuple[str, str]]:
    """Return method and column of every bold cell of the report."""
    found = set()
    for head, *lines in tables_of(report_of(rows, evaluate)).values():
        found |= {
            (line[0], name) for line in lines for name, cell in zip(head, line, strict=True) if "**" in cell
        }
    return found


def test_bold_is_what_differs_from_the_reference_beyond_chance_and_nothing_else() -> None:
    rows = [
        *scores_of("identity", "baseline", [0.1] * 9, psnr_db=9.0, gradient_ratio=3.0),
        *scores_of("fill", "inpainter", [0.5] * 9),
        *scores_of("light", "inpainter", [0.7] * 9, gradient_ratio=1.2, temporal_error=5.0),
        *scores_of("same", "inpainter", [0.5] * 9),
        *scores_of("mixed", "inpainter", [0.9, 0.4] * 4 + [0.3], psnr_db=30.0),
        *scores_of("ceiling", "ceiling", [0.999] * 9, temporal_error=0.2, psnr_db=99.0, gradient_ratio=1.0),
    ]
    assert bold_cells(rows) == {
        ("light", "HaarPSI ↑"),
        ("light", "gain over fill"),
        ("light", "gradient ratio → 1"),  # which is worse
    }


@pytest.mark.parametrize(
    ("films", "methods", "bold"),
    [
        (4, 1, set()),  # fewer than min_films
        (5, 1, {"HaarPSI ↑", "gain over fill"}),
        (5, 2, set()),
        (6, 1, {"HaarPSI ↑", "gain over fill"}),
        (7, 1, {"HaarPSI ↑", "gain over fill", "temporal error, levels ↓"}),  # 4 scores: 40 to 1
    ],
)
def test_more_comparisons_need_more_films(films: int, methods: int, bold: set[str]) -> None:
    rows = scores_of("fill", "inpainter", [0.5] * films)
    for number in range(methods):
        rows += scores_of(f"light {number}", "inpainter", [0.9] * films, temporal_error=1.0)
    assert {column for _, column in bold_cells(rows)} == bold
    assert not bold_cells(rows, replace(EVALUATE, min_films=8))


def test_the_least_films_follow_from_equal_signs() -> None:
    for comparisons, films in ((1, 5), (2, 6), (4, 7), (100, 11)):
        assert least_films(comparisons, EVALUATE) == films
        error = (1 - EVALUATE.confidence) / comparisons
        assert 2.0 ** (1 - films) <= error < 2.0 ** (2 - films)
        assert differs({f"film{n}": [0.1, 0.3] for n in range(films)}, comparisons, EVALUATE)
        assert not differs({f"film{n}": [9.0] for n in range(films - 1)}, comparisons, EVALUATE)
    assert least_films(1, replace(EVALUATE, min_films=20)) == 20


@pytest.mark.parametrize(("comparisons", "films"), [(1, 5), (1, 20), (10, 8), (10, 20)])
def test_equal_methods_differ_no_more_often_than_stated(comparisons: int, films: int) -> None:
    rng = np.random.default_rng(0)
    gains = rng.normal(size=(500, films, 1)) + rng.normal(size=(500, films, 2))
    found = [
        differs({str(film): clips.tolist() for film, clips in enumerate(table)}, comparisons, EVALUATE)
        for table in gains
    ]
    level = (1 - EVALUATE.confidence) / comparisons
    assert np.mean(found) <= level + 2 * math.sqrt(level / 500)


def test_a_clear_difference_of_enough_films_is_beyond_chance() -> None:
    gains = {f"film{n}": [0.1 * n, 0.3] for n in range(20)}
    assert differs(gains, 300, EVALUATE)
    assert differs({film: [-gain for gain in clips] for film, clips in gains.items()}, 300, EVALUATE)
    one_film = {"many clips": [0.3] * 99}
    assert not differs(one_film, 1, EVALUATE)


def test_means_over_fewer_clips_are_labelled_and_compared_on_the_clips_that_both_have() -> None:
    fill = scores_of("fill", "inpainter", [0.5] * 6)
    rows = [*fill, *scores_of("light", "inpainter", [0.7] * 6), *scores_of("other", "inpainter", [0.9])]
    markdown = report_of(rows)
    for heading in ("Verdicts", "Inpainting"):
        lines = {line["method"]: line for line in table(markdown, heading)}
        assert "other (1 of 6 clips)" in lines and "other" not in lines
    cells = {name: line["HaarPSI ↑"] for name, line in lines.items()}
    assert cells["light"] == "**0.7000**" and cells["other (1 of 6 clips)"] == "0.9000"


def test_depth_is_exempt_from_the_guardrails_of_inpainting() -> None:
    ours = scores_of("student + shipped light", "model", [0.6] * 5, gradient_ratio=1.5)
    theirs = scores_of("motion + shipped light", "model", [0.5] * 5)
    assert compare(PROTOCOLS[1], ours, theirs, {}, no_blocks, EVALUATE, comparisons=1).verdict == "better"
    worse = scores_of("student + shipped light", "model", [0.6] * 5, psnr_db=GUARDED["psnr_db"] - 0.1)
    lost = compare(PROTOCOLS[1], worse, theirs, {}, no_blocks, EVALUATE, comparisons=1)
    assert "the whole image loses 0.10 dB" in lost.verdict


def test_columns_without_a_better_direction_have_no_bold_cell() -> None:
    rows = [
        score_row("a", "f", name, "inpainter", **dict.fromkeys(COLUMNS, value))
        for name, value in (("fill", 0.5), ("light", 0.6))
    ]
    markdown = report_of(rows)
    headings = [cell for found in tables_of(markdown).values() for cell in found[0]]
    shown = {re.sub(r" (↑|↓|→ 1)$", "", heading) for heading in headings}
    assert {column.heading for column in COLUMNS.values()} <= shown
    assert [list(line.values())[1:] for line in table(markdown, "Comfort")] == [
        ["0.50", "0.50", "0.50"],
        ["0.60", "0.60", "0.60"],
    ]


def test_missing_scores_are_left_out_of_the_tables_and_named() -> None:
    markdown = report_of(all_kinds())
    assert "LPIPS ↓" not in table(markdown, "Inpainting")[0] and "SIoU" not in markdown
    assert "Without LPIPS and DISTS: `evaluate.vgg_weights`" in markdown
    assert "Nothing to score for VIF, seam ratio." in markdown
    assert [line["disparity error, % ↓"] for line in table(markdown, "End-to-end", -1)] == [
        *("-", "1.000", "0.500")
    ]
    with_weights = [replace(row, lpips=0.1) for row in FILL]
    assert table(report_of(with_weights), "Inpainting")[0]["LPIPS ↓"] == "0.1000"
    markdown = report_of(FILL, evaluate=replace(EVALUATE, vgg_weights="vgg"))
    assert "Nothing to score for VIF, LPIPS, DISTS, seam ratio." in markdown and "Without" not in markdown


def test_region_sizes_are_listed_for_every_clip() -> None:
    for rows in (FILL[:1], all_kinds()):
        lines = table(report_of(rows), "Region sizes")
        assert len(lines) == len({row.clip for row in rows})
        first = next(line for line in lines if line["clip"] == "clip0")
        assert first == {
            "film": ODD,
            "clip": "clip0",
            "reference": "truth",
            "visible, %": "80.00",
            "disoccluded, %": "10.00",
            "border, %": "10.00",
            "unknown, %": "0.00",
        }


def test_cost_table() -> None:
    costs = {"fill": (0.0123, 45.6), "elsewhere": (math.nan, math.nan)}
    lines = table(report_of(FILL, costs=costs), "Cost")
    assert list(lines[0].values()) == ["fill", "0.012", "46"]
    assert list(lines[1].values()) == ["elsewhere", "-", "-"]
    assert "## Cost" not in report_of(FILL)


def test_the_clip_table_is_sorted_by_film() -> None:
    lines = table(report_of(all_kinds()), "Clip by clip")
    assert len(lines) == len(all_kinds())
    assert [line["film"] for line in lines] == sorted(line["film"] for line in lines)
    assert lines[0]["PSNR in holes, dB"] == "20.00" and lines[0]["EPE, px"] == "-"


def test_markdown_special_characters_are_escaped() -> None:
    odd = Table("Names", ("name",), [[ODD], [Bold("x*y")], ["a\nb_c"]], "")
    markdown = to_markdown("T", [Section("S", ["Words.", odd])])
    assert r"| z\|b \<i\> \& \*c\* \_\_d\_\_ \[e](f) \`g\`.mp4 |" in markdown
    assert r"| **x\*y** |" in markdown and "| a b_c |" in markdown


SIBLINGS = {"dataset.html": "the dataset", "gate.md": "the gate"}


def rendered(rows: list[Score], folder: Path) -> tuple[str, str]:
    """Render a report with an image as Markdown and as HTML."""
    clips = {row.clip: row.film for row in rows}
    eval_clips = [eval_clip(clip, film) for clip, film in clips.items()]
    films = {film: ODD for film in clips.values()}
    write_image(folder / "sheet.png", np.full((8, 12, 3), 200, np.uint8))
    options = {"blocks_of": no_blocks, "manifest": "m", "evaluate": EVALUATE, "costs": {"fill": (1.0, 2.0)}}
    found = build_sections(rows, eval_clips, films, sheet=folder / "sheet.png", **options)
    write_page(folder / "index.html", "Evaluation of <this> & that", found, SIBLINGS)
    return to_markdown("E", found), (folder / "index.html").read_text()


def test_markdown_and_html_hold_the_same_cells(tmp_path: Path) -> None:
    rows = [*all_kinds(), *scores_of(ODD, "external", [0.2] * 5)]
    markdown, page = rendered(rows, tmp_path)
    tables = Reader(page).tables
    assert tables == list(tables_of(markdown).values())
    assert len(tables) == 1 + 3 + 4 + 1 + 1, "regions, two protocols, the second with depth, cost, clips"
    assert any(cell.startswith("**") for found in tables for line in found for cell in line)


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    (tmp_path / "gate.md").write_text("# Gate")
    _, page = rendered(all_kinds(), tmp_path)
    addresses = Reader(page).addresses
    assert addresses[0] == "gate.md", "the only sibling that exists"
    assert [address[:23] for address in addresses[1:]] == ["data:image/jpeg;base64,"]
    assert not re.search(r"https?:|//\w|<script|@import|url\(", re.sub(r"base64,[^\"]*", "", page))
    assert "&lt;this&gt; &amp; that" in page and "<i>" not in page


def test_a_bar_chart_is_to_scale_and_leaves_out_nan(tmp_path: Path) -> None:
    nothing = Bar("none", True, math.nan, math.nan, math.nan)
    bars = [Bar("low & slow", False, 0.0, 0.0, 0.0), nothing, Bar("high", True, 0.5, 0.25, 1.0)]
    charts = [
        Bars("B", 2, bars),
        Bars("empty", 2, [nothing]),
        Bars("equal", 2, [Bar("a", True, 0.5, 0.5, 0.5)]),
    ]
    write_page(tmp_path / "a.html", "T", [Section("S", charts)], {})
    page = (tmp_path / "a.html").read_text()
    Reader(page)
    assert "low &amp; slow" in page and "none" not in page and "nan" not in page
    first, second, equal = re.findall(r'x1="([\d.]+)" x2="([\d.]+)"', page)
    left, right = float(first[0]), float(second[1])
    assert first[0] == first[1] and equal[0] == equal[1], "intervals of width 0"
    assert float(second[0]) == pytest.approx(left + (right - left) / 4)


def test_html_is_escaped(tmp_path: Path) -> None:
    odd = Table("<i>", ("<i>",), [[Bold("<i>")], ["<i>"]], "<i> `<i>`")
    write_page(tmp_path / "a.html", "<i>", [Section("<i>", ["<i>", odd])], {})
    page = (tmp_path / "a.html").read_text()
    Reader(page)
    assert "<i>" not in page and "<b>&lt;i&gt;</b>" in page and "<code>&lt;i&gt;</code>" in page


def test_aggregates_have_means_and_intervals_over_films() -> None:
    rows = scores_of("light", "inpainter", [0.5, 0.7, math.nan, 0.6, 0.6])
    found = {row.id: row for row in aggregate_scores([*rows, *FILL], EVALUATE)}
    assert {row.score for row in found.values() if row.method == "light"} == {"haarpsi", *GUARDED}
    flat = found["fill haarpsi"]
    assert (flat.mean, flat.low, flat.high, flat.films, flat.kind) == (0.5, 0.5, 0.5, 5, "inpainter")
    score = found["light haarpsi"]
    assert score.mean == 0.6 == round(mean_score(rows, "haarpsi"), 4) and score.films == 4
    assert 0.5 <= score.low < 0.6 < score.high <= 0.7
    narrow = {row.id: row for row in aggregate_scores(rows, replace(EVALUATE, confidence=0.5))}[
        "light haarpsi"
    ]
    assert score.low < narrow.low < narrow.high < score.high


def test_the_summary_has_only_the_compact_scores() -> None:
    found = summarize(aggregate_scores([*scores_of("light", "inpainter", [0.5] * 5), *FILL], EVALUATE))
    assert list(found) == ["light", "fill"] and found["fill"]["haarpsi"] == 0.5
    assert set(found["light"]) <= set(COMPACT)
    json.dumps(found, allow_nan=False)


def test_plot_points_cover_all_films_and_each_film() -> None:
    points = plot_points(all_kinds(), {"film0": "zero"}, EVALUATE)
    json.dumps(points, allow_nan=False)
    primary = [point for point in points if point["score"] == "haarpsi"]
    identity = [(p["protocol"], p["film"]) for p in primary if p["method"] == "identity"]
    films = ["all films", "zero", "film1", "film2", "film3", "film4"]
    assert identity == [(name, film) for name in ("inpaint-only", "end-to-end") for film in films]
    assert {tuple(point) for point in points} == {
        ("protocol", "score", "method", "film", "mean", "low", "high")
    }
    assert all(point["mean"] == 0.6 for point in primary if point["method"] == "light")
    assert "epe_px" not in {point["score"] for point in points}, "not scored"


def test_error_maps_show_four_times_the_luma_error() -> None:
    truth = np.full((2, 3, 3), 100, np.uint8)
    right = truth.copy()
    right[0, 0] += 10  # 40 once amplified
    right[1, 2] -= 100  # exceeds the scale
    right[1, 0, 0] += 40  # red only: 0.299 * 40 = 12 in luma
    inferno = cv2.applyColorMap(np.array([[0, 40, 255, 48]], np.uint8), cv2.COLORMAP_INFERNO)[0, :, ::-1]
    found = error_map(right, truth)
    assert np.array_equal(found[1, 0], inferno[3])
    assert np.array_equal(found[0, 0], inferno[1]) and np.array_equal(found[1, 2], inferno[2])
    assert np.array_equal(found[0, 1:], inferno[[0, 0]])


def test_disparity_maps_share_a_scale_and_missing_matches_are_gray() -> None:
    disparity = np.array([[-3.0, 2.0, 7.0, 99.0, math.nan]], np.float32)
    inferno = cv2.applyColorMap(np.array([[0, 127, 255]], np.uint8), cv2.COLORMAP_INFERNO)[0, :, ::-1]
    found = disparity_map(disparity, -3.0, 7.0)[0]
    assert np.array_equal(found[:4], inferno[[0, 1, 2, 2]])
    assert found[4].tolist() == [128, 128, 128]


def test_clip_rows_are_images_errors_and_disparities() -> None:
    left, truth = (np.full((4, 6, 3), level, np.uint8) for level in (10, 20))
    regions = np.array([[UNKNOWN, VISIBLE, DISOCCLUDED, BORDER, VISIBLE, VISIBLE]] * 4, np.uint8)
    near = np.linspace(0, 9, 24, dtype=np.float32).reshape(4, 6)
    rows = clip_rows("f.mp4", left, truth, regions, near, {"same": (truth, near), "half": (left, near / 2)})
    assert [[label for label, _ in row][3:] for row in rows] == [
        ["same", "half"],
        ["same: error", "half: error"],
        ["same: disparity", "half: disparity"],
    ]
    assert {image.shape for row in rows for _, image in row} == {(4, 6, 3)}
    (_, seen), (_, true), (_, coloured), (_, same), (_, half) = rows[0]
    assert np.array_equal(seen, left) and np.array_equal(true, truth)
    assert np.array_equal(same, truth) and np.array_equal(half, left)
    assert len(np.unique(coloured[0, :4], axis=0)) == 4, "one colour for each region"
    assert np.array_equal(rows[1][3][1], error_map(truth, truth))
    assert np.array_equal(rows[1][4][1], error_map(left, truth))
    assert np.array_equal(rows[2][3][1], rows[2][1][1]), "the true disparity on the same scale"
    assert not np.array_equal(rows[2][4][1], rows[2][3][1])


def test_clip_without_matches_has_a_gray_disparity_map() -> None:
    image, nothing = np.zeros((4, 6, 3), np.uint8), np.full((4, 6), np.nan, np.float32)
    rows = clip_rows("f", image, image, np.zeros((4, 6), np.uint8), nothing, {"m": (image, nothing)})
    assert (rows[2][3][1] == 128).all()


@pytest.mark.parametrize(("columns", "tile"), [(3, 320), (10, 240), (40, 160)])
def test_contact_sheet_tile_width_depends_on_the_columns(tmp_path: Path, columns: int, tile: int) -> None:
    row = [(f"m{n}", np.full((20, 40, 3), n, np.uint8)) for n in range(columns)]
    write_contact_sheet(tmp_path / "sheet.png", [row, row[:2]])
    sheet = read_image(tmp_path / "sheet.png")
    assert sheet.shape == (2 * (20 + tile // 2 + 3), columns * tile, 3)
    middle = sheet[20 + tile // 4]  # of the first row's images
    assert [middle[n * tile + tile // 2].tolist() for n in range(columns)] == [
        [n] * 3 for n in range(columns)
    ]
    assert not sheet[-tile // 4, 2 * tile :].any(), "rows may be shorter"


def test_written_images_read_back_exactly(tmp_path: Path) -> None:
    frames = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    image = frame_to_image(frames)
    assert image.shape == (5, 7, 3) and image[2, 3, 0] == round(float(frames[0, 0, 2, 3]) * 255)
    write_image(tmp_path / "p.png", image)
    assert np.array_equal(read_image(tmp_path / "p.png"), image)


def test_select_clips_takes_the_largest_disocclusion_of_each_film() -> None:
    clips = [
        replace(eval_clip(f"{film}{clip}", film), disoccluded_share=share)
        for film in "edcba"
        for clip, share in enumerate((0.1, 0.3, 0.2))
    ]
    assert [row.id for row in select_clips(clips)] == ["a1", "b1", "c1", "d1"]
    equal = [replace(row, disoccluded_share=0.1) for row in clips]
    assert select_clips(equal) == select_clips(equal[::-1])
