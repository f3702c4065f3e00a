"""The parts of a bundle and where their weights are. Commands of the registry need no more, and no torch."""

from pathlib import Path

PARTS = ("depth", "inpainter")  # of a bundle
SHIPPED = Path(__file__).parent.parent / "shipped"  # part of the package; described in its MODEL_CARD.md


def weights_folder(bundle: Path | None, part: str) -> Path | None:
    """Return the weights folder of `depth` or `inpaint` in a bundle; None if there is none."""
    return bundle / part if bundle is not None and (bundle / part).is_dir() else None
