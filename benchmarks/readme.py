"""Measure the numbers of README.md on a clean clone and write them into it.

    python benchmarks/readme.py [--dry-run] [--folder FOLDER]

Clones the last commit, runs `./run demo` there with an empty home folder, which also installs `.venv`, and
reads its output, its reports and the weights. Takes as long as that: about a quarter of an hour.
"""

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from command import make_parser, run
from machine import machine
from safetensors.torch import load_file

from secondeye.conversion.bundle_parts import SHIPPED
from secondeye.system.errors import UserError

PROJECT = Path(__file__).parent.parent
# Each matches once in README.md; its group is replaced.
PATTERNS = {
    "seconds to the first film": r"convert a film in (\S+) s",
    "minutes of the demo": r"everything else in (\S+) minutes",
    "minutes to install": r"installs\s+`.venv` in (\S+) minutes",
    "parameters of the student": r"a depth student \((\S+) million parameters\)",
    "parameters of light": r"the one-step inpainter `light` \((\S+) million parameters\)",
    "megabytes of light": r"\| `light`, (\S+) MB, shipped",
    "loss of diffusion": r"the diffusion model is (\S+) dB worse in the holes",
}


def main() -> None:
    """Measure, print and write the numbers."""
    parser = make_parser(__doc__)
    parser.add_argument("--dry-run", action="store_true", help="print the numbers, leave README.md as it is")
    parser.add_argument("--folder", type=Path, help="a new folder for the clone, which is kept then")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        clone = options.folder or Path(temporary) / "secondeye"
        subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(clone)], check=True)
        numbers = measure(clone, Path(temporary))
    print(f"{machine()}\n\n| number | value |\n|---|---|")
    for name, value in numbers.items():
        print(f"| {name} | {value} |")
    page = PROJECT / "README.md"
    text = replace_numbers(page.read_text(), numbers)
    if not options.dry_run:
        page.write_text(text)


def measure(clone: Path, home: Path) -> dict[str, str]:
    """Run the demo in a clone and return all numbers as README.md shows them."""
    steps, installed = run_demo(clone, home)
    first = next(iter(steps.values()))
    evaluation = json.loads((clone / "reports" / "evaluation.json").read_text())
    holes = {name: evaluation[name]["psnr_disoccluded_db"] for name in ("fill", "diffusion")}
    light = SHIPPED / "inpaint" / "model.safetensors"
    return {
        "seconds to the first film": str(first),
        "minutes of the demo": f"{sum(steps.values()) / 60:.0f}",
        "minutes to install": f"{installed / 60:.0f}",
        "parameters of the student": f"{parameters(clone / 'models' / 'depth') / 1e6:.1f}",
        "parameters of light": f"{parameters(light.parent) / 1e6:.1f}",
        "megabytes of light": f"{light.stat().st_size / 1e6:.1f}",
        "loss of diffusion": f"{holes['fill'] - holes['diffusion']:.1f}",
    }


def run_demo(clone: Path, home: Path) -> tuple[dict[str, int], float]:
    """Run `./run demo` and return step -> seconds, and the seconds until the first step."""
    start = time.monotonic()
    installed, steps = 0.0, {}
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    with subprocess.Popen(
        ["./run", "demo"], cwd=clone, env=environment | {"HOME": str(home)}, stdout=subprocess.PIPE, text=True
    ) as demo:
        for line in demo.stdout or ():
            print(line, end="", flush=True)
            if found := re.fullmatch(r"(\S.*?) +(\d+) s\n", line):
                steps[found[1]] = int(found[2])
                installed = installed or time.monotonic() - start - int(found[2])
    if demo.returncode or not steps:
        raise UserError(f"./run demo ended with {demo.returncode}")
    return steps, installed


def parameters(folder: Path) -> int:
    """Return the number of parameters in a folder of weights."""
    return sum(tensor.numel() for path in folder.glob("*.safetensors") for tensor in load_file(path).values())


def replace_numbers(text: str, numbers: Mapping[str, str]) -> str:
    """Return README.md with these numbers. Raises UserError if a pattern does not match exactly once."""
    for name, pattern in PATTERNS.items():
        found = list(re.finditer(pattern, text))
        if len(found) != 1:
            raise UserError(f"README.md: {len(found)} places for the {name}, expected one: {pattern}")
        start, end = found[0].span(1)
        text = text[:start] + numbers[name] + text[end:]
    return text


if __name__ == "__main__":
    run(main)
