"""The forced choice: a page for participants, and the preferences in what they save."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import moving_images
from make_tour import BROWSER_OPTIONS
from test_cli import Run, one_line, secondeye

from secondeye.evaluation import forced_choice, preferences
from secondeye.evaluation.preferences import (
    COLUMNS,
    Answer,
    binomial_interval,
    describe_preferences,
    find_preferences,
    read_answers,
)
from secondeye.film.packing import pack
from secondeye.system.errors import UserError
from secondeye.video.write import write_film

__all__ = ["secondeye"]  # a fixture

BROWSER = shutil.which("chromium")
HEADER = ",".join(COLUMNS)
ROW = "study1,ann,1,street,10,ours,theirs,left,2.5"
OTHER_PAGE = "study2,bob,1,street,10,ours,theirs,left,2.5"


def answers(path: Path, *rows: str) -> Path:
    path.write_text("\r\n".join([HEADER, *rows]) + "\r\n")
    return path


@pytest.mark.parametrize(
    ("wins", "answers", "interval"),
    [
        (8, 10, (0.4439045, 0.9747893)),  # R: binom.test(8, 10)
        (0, 10, (0.0, 0.3084971)),
        (10, 10, (0.6915029, 1.0)),
    ],
)
def test_binomial_intervals(wins: int, answers: int, interval: tuple[float, float]) -> None:
    assert binomial_interval(wins, answers, 0.95) == pytest.approx(interval, abs=1e-6)


def given(wins: dict[str, tuple[int, int]], pair: tuple[str, str] = ("a", "b")) -> list[Answer]:
    """Return answers: participant -> how many are for the first and for the second method."""
    return [
        Answer("study", person, "film", n, *pair, pair[n >= first])
        for person, (first, second) in wins.items()
        for n in range(first + second)
    ]


def test_each_participant_has_the_same_weight() -> None:
    zealot = {"zealot": (0, 60)} | {f"p{n}": (3, 0) for n in range(7)}
    (found,) = find_preferences(given(zealot), confidence=0.95, seed=0)
    assert (found.method, found.other, found.wins, found.answers, found.participants) == ("a", "b", 21, 81, 8)
    assert found.share == 7 / 8 and found.interval[0] > 0.5
    assert found.p == 18 / 2**8, "as large are the sums of 8 or 7 equal signs"
    assert "| **88 %** |" in describe_preferences(given(zealot), confidence=0.9, seed=0)
    unanimous = {"zealot": (60, 0)} | {f"p{n}": (1, 0) for n in range(5)}
    (found,) = find_preferences(given(unanimous), confidence=0.95, seed=0)
    assert (found.share, found.interval, found.p) == (1, (1, 1), 1 / 32)


def test_one_participant_speaks_for_that_person_only() -> None:
    (found,) = find_preferences(given({"ann": (60, 0)}), confidence=0.95, seed=0)
    assert found.p == 1 and found.interval == binomial_interval(60, 60, 0.95)
    page = describe_preferences(given({"ann": (60, 0)}), confidence=0.95, seed=0)
    assert "**" not in page and "| one participant |" in page and "speak for this person only" in page
    page = describe_preferences(given({"ann": (60, 0), "bob": (60, 0)}), confidence=0.95, seed=0)
    assert "**" not in page and "| fewer than 6 participants |" in page and "this person only" not in page


@pytest.mark.parametrize("methods", ["ab", "abcd"])
def test_equal_methods_are_seldom_preferred(methods: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preferences, "_RESAMPLES", 2)
    rng = np.random.default_rng(0)
    pairs, bold = list(combinations(methods, 2)), 0
    for _ in range(60):
        wins = rng.binomial(4, rng.beta(2, 2, size=(len(pairs), 10))).tolist()  # personal tastes
        answers = [
            answer
            for pair, by_person in zip(pairs, wins, strict=True)
            for answer in given({f"p{n}": (won, 4 - won) for n, won in enumerate(by_person)}, pair)
        ]
        bold += any(found.p <= 0.1 for found in find_preferences(answers, confidence=0.9, seed=0))
    assert bold <= 11, "6 are expected of an exact test; 11 are the 98th percentile"


def test_the_report_is_bold_only_beyond_chance(tmp_path: Path, secondeye: Run) -> None:
    agreed = [
        answers(tmp_path / f"{n}.csv", *(f"s,p{n},{k},film,{k},<b>|x,ours,right,1" for k in range(4)))
        for n in range(6)
    ]
    done = secondeye("report", "preferences", *agreed)
    assert done.returncode == 0, done.stderr
    assert r"\<b\>\|x" in done.stdout and "**0 %**" in done.stdout and "ours preferred" in done.stdout
    assert "0 of 24" in done.stdout
    few = secondeye("report", "preferences", *agreed[:5])
    assert "**" not in few.stdout and "fewer than 6 participants" in few.stdout
    # Of two pairs, a preference of six people is not beyond chance.
    other = [answers(tmp_path / "other.csv", "s,p0,1,film,1,ours,third,left,1")]
    assert "fewer than 7 participants" in secondeye("report", "preferences", *agreed[1:], *other).stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the first line must be study,"),
        (b"\xff\xfe\x00", "not a CSV file of answers"),
        (f"{HEADER}\n{ROW[:-4]}\n".encode(), "line 2: has 8 cells instead of 9"),
        (f"{HEADER}\n{ROW.replace('left', 'both')}\n".encode(), "line 2: choice must be left or right"),
        (f"{HEADER}\n{ROW.replace('10', '1e9')}\n".encode(), "line 2: frame must be a number"),
        (f"{HEADER}\n{ROW.replace('ours', 'theirs')}\n".encode(), "both sides show the same method"),
        (
            f"{HEADER}\n{ROW.replace('ann', chr(27) + '[2J')}\n".encode(),
            "participant must be 1 to 100 printable",
        ),
        (f"{HEADER}\n{ROW}\n{ROW}\n".encode(), "line 3: ann answers a trial again"),
        (f"{HEADER}\n{ROW}\n{OTHER_PAGE}\n".encode(), "2 different pages"),
        (f"{HEADER}\n".encode(), "contains no answer"),
        (b"x" * (2**20 + 1), "larger than 1 MiB"),
    ],
)
def test_malformed_answers_are_refused_in_one_line(
    tmp_path: Path, secondeye: Run, content: bytes, message: str
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert message in one_line(secondeye("report", "preferences", tmp_path / "a.csv"))


def stereo_film(
    path: Path, seed: int, start: int = 0, stop: int = 12, fps: int = 24, shift_px: int = 3, height: int = 64
) -> Path:
    path.parent.mkdir(exist_ok=True)
    left = moving_images(24, 64, 96, seed)[start:stop, :height]
    images = (pack(image, np.roll(image, -shift_px, 1), "sbs") for image in left)
    write_film(path, images, Fraction(fps), crf=10 + shift_px)
    return path


@pytest.fixture
def page(tmp_path: Path, secondeye: Run) -> Path:
    """A page of two methods and two films."""
    for shift_px, method in enumerate(("ours", "their")):
        for seed, film in enumerate(("street", "park")):
            stereo_film(tmp_path / method / f"{film}_sbs.mp4", seed, shift_px=3 + shift_px)
    stereo_film(tmp_path / "ours" / "extra_sbs.mp4", 5)
    named = [f"ours={tmp_path / 'ours'}", f'</script>&"theirs={tmp_path / "their"}']
    options = ("--moments", "2", "--frames", "2", "--width", "64")
    done = secondeye("report", "forced-choice", tmp_path / "choice.html", *named, *options)
    assert done.returncode == 0, done.stderr
    assert "left out, since not all methods have them: extra" in done.stderr
    assert "4 trials, 0." in done.stdout
    again = secondeye("report", "forced-choice", tmp_path / "choice.html", *named, *options)
    assert "already exists; give the page another name, or add --overwrite" in one_line(again)
    return tmp_path / "choice.html"


def content_of(page: Path) -> dict[str, Any]:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    content: dict[str, Any] = json.loads(data)
    return content


def test_the_page_shows_all_pairs_at_all_moments_and_needs_no_network(page: Path) -> None:
    content = content_of(page)
    assert [(moment["film"], moment["frame"]) for moment in content["moments"]] == [
        ("park", 2),
        ("park", 8),
        ("street", 2),
        ("street", 8),
    ]
    assert content["trials"] == [[n, "ours", '</script>&"theirs'] for n in range(4)]
    assert all(len(clip) == 4 for moment in content["moments"] for clip in moment["clips"].values())
    text = page.read_text()
    assert not re.search(r"https?://|src=|@import", text) and text.count("</script>") == 2


def test_what_does_not_fit_is_one_line(
    tmp_path: Path, secondeye: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, short = stereo_film(tmp_path / "one_sbs.mp4", 1), stereo_film(tmp_path / "two_sbs.mp4", 2, stop=9)
    late, faster, other, low = (
        stereo_film(tmp_path / "late_sbs.mp4", 1, 2, 14),
        stereo_film(tmp_path / "faster_sbs.mp4", 1, fps=25),
        stereo_film(tmp_path / "other_sbs.mp4", 2),
        stereo_film(tmp_path / "low_sbs.mp4", 1, height=48),
    )

    def refusal(*arguments: object, page: str = "p.html") -> str:
        return one_line(secondeye("report", "forced-choice", tmp_path / page, *arguments))

    assert "must end in .html or .htm" in refusal(f"a={one}", f"b={one}", page="one_sbs.mp4")
    assert f"{tmp_path / 'none'}: folder does not exist" in refusal("a=none", "b=none", page="none/p.html")
    assert "do not show what those of" in refusal(f"a={one}", f"b={other}", "--moments", "1")
    assert "its frame 2 is frame 4 of" in refusal(f"a={one}", f"b={late}", "--moments", "1")
    assert "has 25.000 frames a second" in refusal(f"a={one}", f"b={faster}", "--moments", "1")
    assert "the aspect of 96x48 px differs" in refusal(f"a={one}", f"b={low}", "--moments", "1")

    assert "must be NAME=FILM" in refusal(one)
    assert "a choice needs two methods" in refusal(f"a={one}")
    assert "given twice" in refusal(f"a={one}", f"a={one}")
    assert "has 9 frames" in refusal(f"a={one}", f"b={short}")
    assert "too few for 3 moments" in refusal(f"a={one}", f"b={one}")
    assert "--show must be one of" in refusal(f"a={one}", f"b={one}", "--show", "cross")
    write_film(tmp_path / "flat.mp4", iter(moving_images(12, 64, 96)), Fraction(24))
    assert "must hold both eyes" in refusal(f"a={one}", f"b={tmp_path / 'flat.mp4'}", "--moments", "1")
    monkeypatch.setattr(forced_choice, "MAX_BYTES", 1000)
    assert "the page would be larger" in refusal(f"a={one}", f"b={one}", "--moments", "1")
    assert not (tmp_path / "p.html").exists()


class Browser:
    """Headless Chromium, spoken to by its protocol for debuggers over two pipes."""

    def __init__(self, folder: Path) -> None:
        assert BROWSER is not None
        (read_end, self._write), (self._read, write_end) = os.pipe(), os.pipe()

        def as_three_and_four() -> None:
            os.dup2(read_end, 103)
            os.dup2(write_end, 104)
            os.dup2(103, 3)
            os.dup2(104, 4)

        command = [
            BROWSER,
            *BROWSER_OPTIONS,
            "--remote-debugging-pipe",
            f"--user-data-dir={folder / 'profile'}",
        ]
        self.process = subprocess.Popen(
            [*command, "about:blank"],
            env=os.environ | {"HOME": str(folder)},
            preexec_fn=as_three_and_four,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_end)
        os.close(write_end)
        self._count, self._rest, self._session = 0, b"", {}
        self.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True
        )
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        self.call("Page.enable")

    def call(self, method: str, **parameters: object) -> Any:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters} | self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self.wait(lambda answer: answer.get("id") == self._count)["result"]

    def wait(self, is_wanted: Any) -> Any:
        while True:
            line, zero, rest = self._rest.partition(b"\0")
            if not zero:
                self._rest += os.read(self._read, 2**16)
                continue
            self._rest = rest
            if is_wanted(json.loads(line)):
                return json.loads(line)

    def open(self, page: Path) -> None:
        self.call("Page.navigate", url=page.as_uri())
        self.wait(lambda event: event.get("method") == "Page.loadEventFired")

    def run(self, script: str) -> Any:
        done = self.call("Runtime.evaluate", expression=script)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if BROWSER is None:
        pytest.skip("Chromium is not installed")
    opened = Browser(tmp_path)
    yield opened
    opened.process.kill()
    opened.process.wait()


@pytest.mark.slow(seconds=4)
def test_a_participant_answers_reloads_and_saves(page: Path, browser: Browser, secondeye: Run) -> None:
    start = "element('participant').value = 'ann'; document.querySelector('#who button').click()"
    browser.open(page)
    browser.run(start)
    assert browser.run("element('progress').textContent") == "1 of 4"
    assert browser.run("element('left_image').src != element('right_image').src")
    browser.run("shownAt += 1000; element('left').click()")
    assert browser.run("element('progress').textContent") == "1 of 4", "a double click is no answer"
    browser.run("shownAt -= 2000; element('left').click()")
    browser.open(page)
    browser.run(start)
    assert browser.run("element('progress').textContent") == "2 of 4", "the answer was kept"
    for held in (False, True, True):
        browser.run("shownAt -= 1000")
        browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", autoRepeat=held)
    assert browser.run("element('progress').textContent") == "3 of 4", "a held key is one answer"
    browser.run("element('save').click()")
    browser.wait(
        lambda event: (
            event.get("params", {}).get("state") == "completed"
            and event["method"] == "Browser.downloadProgress"
        )
    )
    (saved,) = page.parent.glob("answers_*_ann.csv")
    given = read_answers([saved])
    assert [answer.chosen for answer in given] == [given[0].left, given[1].right]
    assert {answer.film for answer in given} <= {"street", "park"}
    done = secondeye("report", "preferences", saved)
    assert done.returncode == 0 and "2 answers of 1 participant" in done.stdout
    for _ in range(2):
        browser.run("shownAt -= 1000; element('left').click()")
    assert browser.run("!element('end').hidden && element('trial').hidden")


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="printable"):
        forced_choice.write_study(
            tmp_path / "p.html",
            {"a\n": tmp_path, "b": tmp_path},
            show="wiggle",
            moments=1,
            frames=1,
            width=64,
            seed=0,
            overwrite=False,
            log=print,
        )
