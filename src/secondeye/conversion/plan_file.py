"""The file of `--plan`: strength and convergence of every shot of a film, to be read and edited.

film: film.mp4
depth: motion
shots:
- {start: 0, stop: 30, seconds: 0, strength_percent: 1.75, convergence: 0.5, subject_depth: 0.43, ...}

`start` says which shot it is. A shot, a strength or a convergence that is left out is chosen automatically,
or as --strength-percent and --convergence say. The other values are for the reader.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from secondeye.conversion.comfort import StereoRequest
from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic

_HEADER = """\
# Edit strength_percent and convergence of any shot and run the same command with --overwrite: only the shots
# that were changed are converted again. What is left out is chosen automatically.
"""
_WHOLE, _REAL = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
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


class PlannedShot(NamedTuple):
    """A shot as a plan states it."""

    line: int  # in the file, from 1
    start: int  # first frame
    stop: int | None  # one past the last
    strength_percent: float | None
    convergence: float | None


class ShotLine(NamedTuple):
    """A converted shot, as it is written; the names of the values are those in the file."""

    start: int
    stop: int
    seconds: float  # time of the first frame
    strength_percent: float
    convergence: float
    subject_depth: float
    confidence: float


def write_plan_file(path: Path, film: Path, depth: str, shots: Iterable[ShotLine]) -> None:
    """Write the values that every shot was converted with."""
    head = [f"film: {json.dumps(film.name)}", f"depth: {json.dumps(depth)}", "shots:"]
    lines = [
        "- {" + ", ".join(f"{name}: {value}" for name, value in shot._asdict().items()) + "}"
        for shot in shots
    ]
    write_atomic(path, _HEADER + "\n".join([*head, *lines]) + "\n")


def read_plan_file(path: Path) -> list[PlannedShot]:
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
    return planned


def _read_shot(path: Path, node: Node) -> PlannedShot:
    line = node.start_mark.line + 1
    if not isinstance(node, MappingNode):
        raise _error(path, line, "a shot must be a mapping such as {start: 0, strength_percent: 2}")
    values = {
        name: _number(path, name, value)
        for name, value in _mapping(path, node, tuple(_LIMITS), "a shot").items()
    }
    if "start" not in values:
        raise _error(path, line, "the shot has no `start`")
    stop = values.get("stop")
    return PlannedShot(
        line,
        int(values["start"]),
        None if stop is None else int(stop),
        values.get("strength_percent"),
        values.get("convergence"),
    )


def _mapping(path: Path, node: MappingNode, known: Sequence[str], what: str) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name not in known:
            raise _error(path, line, f"unknown key `{name}`; {what} may have {', '.join(known)}")
        if name in found:
            raise _error(path, line, f"`{name}` is given twice")
        found[name] = value
    return found


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
        given = repr(node.value) if isinstance(node, ScalarNode) else "a list or mapping"
        kind = "a whole number" if name in _FRAMES else "a number"
        limits = f" from {least:g} to {most:g}" if math.isfinite(most) else ""
        line = node.start_mark.line + 1
        raise _error(path, line, f"`{name}` must be {kind}{limits}, got {given}") from None
    return value


def request_shots(
    path: Path,
    planned: Sequence[PlannedShot],
    shots: Sequence[tuple[int, int]],  # of the film: first frame, one past the last
    otherwise: StereoRequest,  # for what the plan leaves out
) -> list[StereoRequest]:
    """Return what is asked of every shot of the film. Raises UserError for a shot that the film has not."""
    requests = dict.fromkeys((start for start, _ in shots), otherwise)
    stops = dict(shots)
    for shot in planned:
        if shot.start not in stops:
            raise _error(path, shot.line, f"no shot starts at frame {shot.start}; {_nearest(shot, shots)}")
        if shot.stop not in (None, stops[shot.start]):
            stated = f"the shot from frame {shot.start} ends before frame {stops[shot.start]}"
            raise _error(path, shot.line, f"{stated}, not {shot.stop}; cuts cannot be moved")
        strength, convergence = shot.strength_percent, shot.convergence
        requests[shot.start] = StereoRequest(
            otherwise.strength_percent if strength is None else strength,
            otherwise.convergence if convergence is None else convergence,
            strength is not None,
        )
    return list(requests.values())


def _nearest(shot: PlannedShot, shots: Sequence[tuple[int, int]]) -> str:
    start = min((start for start, _ in shots), key=lambda start: abs(start - shot.start))
    return f"the nearest one starts at {start}; cuts cannot be moved"


def _error(path: Path, line: int, problem: str) -> UserError:
    return UserError(f"{path}, line {line}: {problem}")
