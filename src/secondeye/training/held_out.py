"""The films that training holds out for validation."""

import sys
from collections.abc import Iterable

from secondeye.system.process import is_main_process
from secondeye.system.text import pluralize

INTERVAL = 10  # one film in ten is held out


def held_out_films(name: str, films: Iterable[str]) -> set[str]:
    """Choose the films to validate on: every tenth, in the order of their first appearance.

    Of fewer than 20 films none is held out, since too little would be left on either side; a line on stderr
    then says that `name` is validated on films it was trained on.
    """
    # Not the first one: real films come first, and often there is only one.
    distinct = list(dict.fromkeys(films))
    if len(distinct) >= 2 * INTERVAL:
        return set(distinct[INTERVAL - 1 :: INTERVAL])
    if is_main_process():
        print(
            f"{name}: {pluralize(len(distinct), 'film')}, fewer than {2 * INTERVAL}: none is held out, "
            "validation uses films that were trained on",
            file=sys.stderr,
        )
    return set()
