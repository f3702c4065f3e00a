"""Where strength and convergence of each shot come from: options, a plan, the model, or its depth."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from secondeye.conversion.comfort import BEHIND_PERCENT, FRONT_PERCENT, StereoRequest
from secondeye.conversion.plan_file import STEREO, PlanFile, request_shots
from secondeye.conversion.settings import ConversionSettings


class StereoSource(NamedTuple):
    """Options win over the plan, and the plan wins over the model; the rest is automatic."""

    settings: ConversionSettings
    plan_file: Path | None  # of --plan
    planned: PlanFile | None  # its content; None if it does not exist
    over_plan: Collection[str]  # names of STEREO that are given as options

    @property
    def planned_names(self) -> tuple[str, ...]:
        """The names of STEREO whose values come from the plan."""
        return () if self.planned is None else tuple(name for name in STEREO if name not in self.over_plan)

    def requests(self, shots: Sequence[tuple[int, int]]) -> list[StereoRequest]:
        """Return the request for every shot. Raises UserError for a planned shot that the film lacks."""
        settings = self.settings
        otherwise = StereoRequest(
            settings.strength_percent,
            settings.convergence,
            is_exact=False,
            holds_borders=settings.holds_borders,
        )
        if self.plan_file is None or self.planned is None:
            return [otherwise] * len(shots)
        return request_shots(self.plan_file, self.planned.shots, shots, otherwise, self.over_plan)

    def describe(self) -> list[str]:
        """Return lines for the log; none if both values are given."""
        strength, convergence = self.settings.strength_percent, self.settings.convergence
        values = (
            f"strength {'automatic' if strength is None else f'{strength:g} %'}, "
            f"convergence {'automatic' if convergence is None else f'{convergence:g}'}"
        )
        if self.planned is not None:
            lines = [f"strength and convergence: from {self.plan_file}; what it leaves out: {values}"]
            options = ", ".join(f"--{name.replace('_', '-')}" for name in STEREO if name in self.over_plan)
            return [*lines, f"warning: {self.plan_file}: overruled by {options}"] if options else lines
        if strength is None and convergence is None:
            budget = (
                f"at most {FRONT_PERCENT:g} % of the width in front of the screen and {BEHIND_PERCENT:g} %"
            )
            return [f"strength and convergence: automatic, {budget} behind it"]
        return [values] if strength is None or convergence is None else []
