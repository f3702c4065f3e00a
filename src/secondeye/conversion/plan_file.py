"""The file of `--plan`: strength and convergence of every shot of a film, to be read and edited.

film: film.mp4
depth: motion
shots:
- {start: 0, stop: 30, seconds: 0, strength_percent: 1.75, convergence: 0.5, holds_borders: true, ...}

`start` says which shot it is. A shot or a value that is left out, empty or `auto` is that of the model, or
chosen automatically. --strength-percent and --convergence win over the file. The other values are for the
reader.
"""

import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from secondeye.conversion.comfort import StereoRequest
from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic

_HEADER = """\
# Edit strength_percent and convergence of any shot and run the same command with --overwrite, but without
# --strength-percent and --convergence, which win over this file: only the shots that were changed are
# converted again. What is left out or `auto` is chosen automatically.
"""
STEREO = ("strength_percent", "convergence")  # what options may state, too
_WHOLE, _REAL = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_BOOLEAN, _NULL = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"
_ECHO = 40  # characters of a wrong value, at most, that an error repeats
_INFORMATION = ("film", "depth")
_LIMITS = {  # smallest and largest value
    "start": (0, math.inf),
    "stop": (1, math.inf),
    "seconds": (-math.inf, math.inf),
    "strength_percent": (0, 10),
    "convergence": (0, 1),
    "subject_depth": (0, 1),
    "confidence": (0, 1),
}
_FRAMES = ("start", "stop")  # whole numbers
_BORDERS = "holds_borders"
_KEYS = (*_LIMITS, _BORDERS)


class PlannedShot(NamedTuple):
    """A shot as a plan states it."""

    line: int  # in the file, from 1
    start: int  # first frame
    stop: int | None  # one past the last
    strength_percent: float | None
    convergence: float | None
    holds_borders: bool | None = None


class PlanFile(NamedTuple):
    """The content of a plan."""

    film: str  # name of the film that it was written for; "" if not stated
    depth: str  # name of the depth estimator; "" if not stated
    shots: list[PlannedShot]

    def mismatch(self, film: str, depth: str) -> str:
        """Return what it was written for, if that is another film or depth than these; "" if not."""
        others = [
            f"{kind} {json.dumps(_shorten(stated))}, not {json.dumps(own)}"
            for kind, stated, own in (("film", self.film, film), ("depth", self.depth, depth))
            if stated not in ("", own)
        ]
        return " and ".join(others)


class ShotLine(NamedTuple):
    """A converted shot, as it is written; the names of the values are those in the file."""

    start: int
    stop: int
    seconds: float  # time of the first frame
    strength_percent: float
    convergence: float
    holds_borders: bool
    subject_depth: float
    confidence: float


def write_plan_file(path: Path, film: Path, depth: str, shots: Iterable[ShotLine]) -> None:
    """Write the values that every shot was converted with."""
    head = [f"film: {json.dumps(film.name)}", f"depth: {json.dumps(depth)}", "shots:"]
    lines = [
        "- {" + ", ".join(f"{name}: {json.dumps(value)}" for name, value in shot._asdict().items()) + "}"
        for shot in shots
    ]
    write_atomic(path, _HEADER + "\n".join([*head, *lines]) + "\n")


def read_plan_file(path: Path) -> PlanFile:
    """Read a plan. Raises UserError, with the line, for what it may not contain."""
    try:
        root = YAML(typ="safe").compose(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: not YAML ({error.problem})") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(root, MappingNode):
        raise UserError(f"{path}: must be a mapping with the key `shots`")
    content = _mapping(path, root, (*_INFORMATION, "shots"), "the plan")
    shots = content.get("shots")
    if not isinstance(shots, SequenceNode):
        raise UserError(f"{path}: `shots` must be a list of shots")
    planned = [_read_shot(path, node) for node in shots.value]
    first: dict[int, int] = {}
    for shot in planned:
        if shot.start in first:
            raise _error(path, shot.line, f"start {shot.start} is also in line {first[shot.start]}; keep one")
        first[shot.start] = shot.line
    film, depth = (_text(path, name, content.get(name)) for name in _INFORMATION)
    return PlanFile(film, depth, planned)


def _text(path: Path, name: str, node: Node | None) -> str:
    if node is None:
        return ""
    if not isinstance(node, ScalarNode):
        raise _error(path, node.start_mark.line + 1, f"`{name}` must be a name, got a list or mapping")
    return str(node.value)


def _read_shot(path: Path, node: Node) -> PlannedShot:
    line = node.start_mark.line + 1
    if not isinstance(node, MappingNode):
        raise _error(path, line, "a shot must be a mapping such as {start: 0, strength_percent: 2}")
    stated = {
        name: value
        for name, value in _mapping(path, node, _KEYS, "a shot").items()
        if not isinstance(value, ScalarNode) or (value.tag != _NULL and value.value != "auto")
    }
    borders = stated.pop(_BORDERS, None)
    values = {name: _number(path, name, value) for name, value in stated.items()}
    if "start" not in values:
        raise _error(path, line, "the shot has no `start`")
    stop = values.get("stop")
    return PlannedShot(
        line,
        int(values["start"]),
        None if stop is None else int(stop),
        values.get("strength_percent"),
        values.get("convergence"),
        None if borders is None else _boolean(path, _BORDERS, borders),
    )


def _mapping(path: Path, node: MappingNode, known: Sequence[str], what: str) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode):
            raise _error(path, line, f"a key is a list or mapping; {what} may have {', '.join(known)}")
        name = str(key.value)
        if name not in known:
            raise _error(path, line, f"unknown key `{_shorten(name)}`; {what} may have {', '.join(known)}")
        if name in found:
            raise _error(path, line, f"`{name}` is given twice")
        found[name] = value
    return found


def _shorten(text: str) -> str:
    return text if len(text) <= _ECHO else f"{text[:_ECHO]}..."


def _given(node: Node) -> str:
    """Return a wrong value as errors repeat it."""
    return repr(_shorten(node.value)) if isinstance(node, ScalarNode) else "a list or mapping"


def _boolean(path: Path, name: str, node: Node) -> bool:
    if not isinstance(node, ScalarNode) or node.tag != _BOOLEAN:
        line = node.start_mark.line + 1
        raise _error(path, line, f"`{name}` must be true or false, got {_given(node)}")
    return bool(node.value.lower() == "true")


def _number(path: Path, name: str, node: Node) -> float:
    least, most = _LIMITS[name]
    kinds = (_WHOLE,) if name in _FRAMES else (_WHOLE, _REAL)
    convert: Callable[[str], float] = int if name in _FRAMES else float
    try:
        if not isinstance(node, ScalarNode) or node.tag not in kinds:
            raise ValueError
        value = convert(node.value)
        if not least <= value <= most:  # nor NaN
            raise ValueError
    except ValueError:
        kind = "a whole number" if name in _FRAMES else "a number"
        limits = f" from {least:g} to {most:g}" if math.isfinite(most) else ""
        line = node.start_mark.line + 1
        raise _error(path, line, f"`{name}` must be {kind}{limits}, got {_given(node)}") from None
    return value


def request_shots(
    path: Path,
    planned: Sequence[PlannedShot],
    shots: Sequence[tuple[int, int]],  # of the film: first frame, one past the last
    otherwise: StereoRequest,  # for what the plan leaves out
    over_plan: Collection[str] = (),  # names of STEREO whose values in `otherwise` win over the plan
) -> list[StereoRequest]:
    """Return the request for every shot of the film. Raises UserError for a shot that the film lacks.

    If both values win over the plan, so does `holds_borders`.
    """
    ignored = {*over_plan, *([_BORDERS] if set(STEREO) <= set(over_plan) else [])}
    requests = dict.fromkeys((start for start, _ in shots), otherwise)
    stops = dict(shots)
    for shot in planned:
        if shot.start not in stops:
            raise _error(path, shot.line, f"no shot starts at frame {shot.start}; {_nearest(shot, shots)}")
        if shot.stop not in (None, stops[shot.start]):
            stated = f"the shot from frame {shot.start} ends before frame {stops[shot.start]}"
            raise _error(path, shot.line, f"{stated}, not {shot.stop}; cuts cannot be moved")
        values = {name: getattr(shot, name) for name in (*STEREO, _BORDERS) if name not in ignored}
        given = {name: value for name, value in values.items() if value is not None}
        requests[shot.start] = otherwise._replace(is_exact="strength_percent" in given, **given)
    return list(requests.values())


def _nearest(shot: PlannedShot, shots: Sequence[tuple[int, int]]) -> str:
    start = min((start for start, _ in shots), key=lambda start: abs(start - shot.start))
    return f"the nearest one starts at {start}; cuts cannot be moved"


def _error(path: Path, line: int, problem: str) -> UserError:
    return UserError(f"{path}, line {line}: {problem}")
