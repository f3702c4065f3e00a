"""What a converted film was made with: a JSON record in the container's tag `comment`, the same in every run.

{"secondeye": "0.1.0", "code": "4f...", "version": 3, "depth": {"name": "student", "weights": "ab...",
 "licences": "CC0-1.0"}, "inpainter": {...}, "settings": {"strength_percent": 3.0, ...}, "source": "film.mp4",
 "packing": "sbs", "frame": "3840x1080"}
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondeye import __version__
from secondeye.conversion.bundle_parts import SHIPPED, weights_folder
from secondeye.conversion.depth_record import read_record as read_maps_record
from secondeye.conversion.version_file import read_version
from secondeye.conversion.views import BOTH
from secondeye.execution import code_hash
from secondeye.system.files import hash_weights, write_atomic
from secondeye.video.probe import read_tags

if TYPE_CHECKING:
    from secondeye.conversion.output_format import OutputFormat
    from secondeye.conversion.settings import ConversionSettings
    from secondeye.inpaint import InpaintPlan

_TAG = "comment"  # the only tag that mp4, mov and mkv can all hold and players show
SHIPPED_LICENCE = "Apache-2.0"  # see shipped/MODEL_CARD.md
_NO_WEIGHTS = "no weights"
_LICENCES = {
    "motion": _NO_WEIGHTS,
    "fill": _NO_WEIGHTS,
    "propagation": _NO_WEIGHTS,
}
_NOT_RECORDED = "not recorded"
_PARTS, _RESOURCES = ("model", "depth", "depth_maps", "inpainter"), ("offload", "workers", "max_memory_gb")


def describe_conversion(
    film: Path,
    settings: "ConversionSettings",
    output: "OutputFormat",
    plans: "Sequence[InpaintPlan]",  # of the inpainter; the first one is that of most frames
    comment: str,  # the source's own, which the tag would replace
    planned: Collection[str] = (),  # settings that a plan states for each shot
) -> dict[str, Any]:
    """Return the record of a conversion."""
    version, tags = read_version(settings.model)
    chosen = {
        name: value for name, value in asdict(settings).items() if name not in (*_PARTS, *_RESOURCES)
    } | (_without_memory(plans[0]) if plans else {})
    chosen["crf"] = settings.encoding.crf
    for name in ("strength_percent", "convergence"):
        if name in planned or chosen[name] is None:
            chosen[name] = "plan" if name in planned else "auto"
    record = {
        "secondeye": __version__,
        "code": str(code_hash.code_and_versions("secondeye.conversion.convert")["code"])[:12],
        "version": version,
        "depth": describe_depth(settings),
        "inpainter": _describe_part("inpainter", settings.inpainter, settings.model, tags),
        "settings": chosen,
        "source": film.name,
        "packing": output.layout.packing or "",
        "frame": f"{output.width}x{output.height}",
    }
    return record | ({"comment": comment} if comment else {})


def describe_depth(settings: "ConversionSettings") -> dict[str, Any]:
    """Return name, weights and licences of the depth estimator, or of the one that made the depth maps."""
    if settings.depth_maps is not None:
        made_by = read_maps_record(settings.depth_maps).get("depth", {"licences": _NOT_RECORDED})
        return {"name": "maps"} | made_by | {"maps": settings.depth_maps.name}
    if weights := settings.depth_weights:
        from secondeye.depth.estimators import public_name

        return {
            "name": public_name(settings.located_depth),
            "weights": weights.hash,
            "licences": weights.licence,
        }
    return _describe_part("depth", settings.depth, settings.model, read_version(settings.model)[1])


def _without_memory(plan: "InpaintPlan") -> dict[str, int | str]:
    return {name: value for name, value in plan.describe().items() if name != "memory_bytes"}


def _describe_part(part: str, name: str, bundle: Path | None, tags: Mapping[str, str]) -> dict[str, str]:
    if name in _LICENCES:
        return {"name": name, "licences": _LICENCES[name]}
    if part == "inpainter" and name.startswith("command:"):
        from secondeye.inpaint.command import program_of

        program = program_of(name.removeprefix("command:"))  # its arguments may name private folders
        return {"name": f"command {program}", "weights": "", "licences": _NOT_RECORDED}
    folder = weights_folder(bundle, "depth" if part == "depth" else "inpaint")
    licences = SHIPPED_LICENCE if bundle == SHIPPED else tags.get(f"{part}_licences", _NOT_RECORDED)
    return {"name": name, "weights": hash_weights(folder) if folder else "", "licences": licences}


def to_comment(record: Mapping[str, Any]) -> str:
    """Return the content of the tag."""
    return json.dumps(record, sort_keys=True)


def write_sidecar(output: Path, record: Mapping[str, Any]) -> None:
    """Write a film's record beside it, as NAME.json."""
    write_atomic(sidecar_of(output), json.dumps(record, indent=1, sort_keys=True) + "\n")


def sidecar_of(output: Path) -> Path:
    """Return the path of a film's record beside it."""
    return output.with_name(f"{output.name}.json")


def read_record(film: Path) -> dict[str, Any] | None:
    """Return the record in a film; None if secondeye did not write it. Raises UnreadableFilm."""
    tags = read_tags(film)
    try:
        record = json.loads(tags.get(_TAG, ""))
    except ValueError:
        return None
    is_own = (
        isinstance(record, dict) and "secondeye" in record and isinstance(record.get("settings", {}), dict)
    )
    return record if is_own else None


def has_synthesised_left(film: Path) -> bool:
    """Return whether secondeye made both views of a film, so that its left view is not the source.

    Raises UnreadableFilm.
    """
    record = read_record(film)
    return record is not None and record.get("settings", {}).get("views") == BOTH


def own_comment(film: Path) -> str:
    """Return the comment of a source; that of a film which secondeye wrote is the one of its own source."""
    record = read_record(film)
    return str(record.get("comment", "")) if record else read_tags(film).get(_TAG, "")


def describe_model(record: Mapping[str, Any]) -> str:
    """Return the version and parts of a record in one line."""
    version = f"version {record['version']}" if record.get("version") else "no registered version"
    return f"{version}; {record['depth']['name']} + {record['inpainter']['name']}"
