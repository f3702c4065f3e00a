"""The HTML page of a forced choice: one file with its images and its script, without network."""

import json
from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from secondeye.report.rendering import render_template
from secondeye.system.files import write_atomic


def write_choice_page(
    path: Path,
    content: Mapping[str, object],  # what the script shows: see templates/choice.html.j2
    *,
    glasses: bool,  # the images are red-cyan anaglyphs
) -> None:
    """Write the page. Names in the content are escaped, so that they cannot end the script."""
    data = json.dumps(content).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    page = render_template("choice.html.j2", tests={}, filters={}, data=Markup(data), glasses=glasses)
    write_atomic(path, page)
