"""MLflow pyfunc model of a registered version; MLflow copies this file and the package beside it.

Its input is a table of films. It writes their stereoscopic versions and returns a table of them.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext


class Converter(PythonModel):
    """Convert films with the bundle of this version."""

    def load_context(self, context: PythonModelContext) -> None:
        """Store the path of the bundle; weights are loaded per film."""
        self.bundle = Path(context.artifacts["bundle"])

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,  # input_path, output_path: files; an empty output has its default name
        params: dict[str, Any] | None = None,  # the options of `secondeye convert`; None: its default
    ) -> pd.DataFrame:  # output_path, frames: a row for each film that is written
        """Convert the films one by one. Raises UserError and UnreadableFilm."""
        from secondeye.conversion.bundle import settings_from_bundle
        from secondeye.conversion.convert import convert

        chosen = {name: value for name, value in (params or {}).items() if value is not None}
        overwrite = chosen.pop("overwrite", False)
        settings = settings_from_bundle(self.bundle, **chosen)
        made = [
            convert(
                Path(row.input_path),
                Path(row.output_path) if row.output_path else None,
                settings,
                overwrite=overwrite,
            )
            for row in model_input.itertuples()
        ]
        rows = [(str(path), film.frames) for film in made for path in film.outputs]
        return pd.DataFrame(rows, columns=["output_path", "frames"])


mlflow.models.set_model(Converter())
