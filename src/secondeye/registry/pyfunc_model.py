"""What a version of the registered model runs: MLflow copies this file, and the package beside it.

A table of films goes in, their stereoscopic versions are written, a table of them comes out.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext


class Converter(PythonModel):
    """The bundle of this version, as a function of films."""

    def load_context(self, context: PythonModelContext) -> None:
        """Find the weights; they are read film by film."""
        self.bundle = Path(context.artifacts["bundle"])

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,  # input_path, output_path: files; an empty output is NAME_sbs.mp4
        params: dict[str, Any] | None = None,  # strength_percent, convergence: None as the bundle says
    ) -> pd.DataFrame:  # output_path, frames
        """Convert each film in turn. Raises Refusal and UnreadableFilm with one line, as `convert` does."""
        from secondeye.conversion.bundle import settings_from_bundle
        from secondeye.conversion.convert import convert

        chosen = params or {}
        settings = settings_from_bundle(
            self.bundle, chosen.get("strength_percent"), chosen.get("convergence")
        )
        made = [
            convert(
                Path(row.input_path),
                Path(row.output_path) if row.output_path else None,
                settings,
                overwrite=bool(chosen.get("overwrite")),
            )
            for row in model_input.itertuples()
        ]
        return pd.DataFrame(
            {"output_path": [str(film.output) for film in made], "frames": [film.frames for film in made]}
        )


mlflow.models.set_model(Converter())
