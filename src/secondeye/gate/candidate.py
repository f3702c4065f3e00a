"""Models that the gate compares: the champion, and the champion with one part replaced by a trained one."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from secondeye.conversion.bundle import DEFAULT_BUNDLE, Bundle, read_bundle
from secondeye.conversion.bundle_parts import PARTS, weights_folder
from secondeye.evaluation.methods import Method, load_estimator, load_inpainter
from secondeye.system.errors import UserError
from secondeye.system.files import hash_weights


class TrainedPart(NamedTuple):
    """A part that a training stage wrote."""

    part: str  # of PARTS
    name: str
    weights: Path

    @property
    def weights_hash(self) -> str:
        return hash_weights(self.weights)


# The order in which they challenge: part, name, folder in models/.
_TRAINED = (
    ("depth", "student", "depth"),
    ("inpainter", "light", "inpaint/light"),
    ("inpainter", "diffusion", "inpaint/diffusion"),
)


@dataclass(frozen=True)
class Candidate:
    """A bundle and the folders of its weights."""

    bundle: Bundle
    depth_weights: Path | None
    inpaint_weights: Path | None

    def part_id(self, part: str) -> str:
        """Return the name of a part and the hash of its weights."""
        name = self.bundle.depth if part == "depth" else self.bundle.inpainter
        folder = self.depth_weights if part == "depth" else self.inpaint_weights
        return f"{name} {hash_weights(folder)[:12]}" if folder else name

    def as_method(self, name: str, part: str) -> Method:
        """Return the method that scores a part: depth end to end, an inpainter on matched disparity."""
        return Method(
            name,
            "model" if part == "depth" else "inpainter",
            self.bundle.depth if part == "depth" else "",
            self.depth_weights if part == "depth" else None,
            self.bundle.inpainter,
            self.inpaint_weights,
        )

    def with_part(self, part: str, name: str, weights: Path | None) -> "Candidate":
        """Replace one part."""
        if part == "depth":
            return replace(self, bundle=replace(self.bundle, depth=name), depth_weights=weights)
        bundle = replace(self.bundle, inpainter=name, tiles=None, steps=None)  # chosen for the part replaced
        return replace(self, bundle=bundle, inpaint_weights=weights)

    def with_fallback(self, part: str) -> "Candidate":
        """Replace one part by that of DEFAULT_BUNDLE, which needs no weights."""
        return self.with_part(
            part, DEFAULT_BUNDLE.depth if part == "depth" else DEFAULT_BUNDLE.inpainter, None
        )


def load_candidate(folder: Path) -> Candidate:
    """Load a bundle. Raises UserError if it cannot be read."""
    return Candidate(read_bundle(folder), weights_folder(folder, "depth"), weights_folder(folder, "inpaint"))


def load_champion(folder: Path) -> tuple[Candidate, dict[str, str]]:
    """Load the champion; parts that this code cannot load fall back to DEFAULT_BUNDLE's.

    Returns the candidate, and the reason for each part that fell back. Without the fallback, a champion
    written by older code could never be replaced.
    """
    try:
        champion = load_candidate(folder)
    except UserError as error:
        return Candidate(DEFAULT_BUNDLE, None, None), dict.fromkeys(PARTS, str(error))
    unusable = {}
    for part in PARTS:
        method = champion.as_method("champion", part)
        try:
            (load_estimator if part == "depth" else load_inpainter)(method, method.content)
        except UserError as error:
            unusable[part] = str(error)
            champion = champion.with_fallback(part)
    return champion, unusable


def find_challengers(
    models: Path,
    champion: Candidate,
    vetoed: Collection[str],  # hashes of weights that do not challenge
) -> tuple[list[TrainedPart], list[TrainedPart]]:
    """Return the trained parts that differ from the champion's, in the order in which they challenge.

    The second list contains those that would, but are vetoed.
    """
    found = [
        trained
        for part, name, folder in _TRAINED
        if (models / folder / "run").is_dir()
        for trained in [TrainedPart(part, name, models / folder)]
        if champion.with_part(*trained).part_id(part) != champion.part_id(part)
    ]
    barred = [trained for trained in found if trained.weights_hash in vetoed]
    return [trained for trained in found if trained not in barred], barred
