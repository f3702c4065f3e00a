"""Detection of NaN and inf in what methods produce."""

from torch import Tensor


class NonFiniteError(Exception):
    """A method produced a NaN or inf. It gets no score at all: skipping the NaNs would hide its bad clips."""


def require_finite(output: Tensor) -> None:
    """Raise NonFiniteError unless every value is finite."""
    if not bool(output.isfinite().all()):
        raise NonFiniteError
