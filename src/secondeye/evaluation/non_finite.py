"""Detection of NaN and inf in what methods produce."""

from torch import Tensor


class NonFiniteError(Exception):
    """A method produced a NaN or inf. It gets no score at all: leaving out the clip would hide this."""


def require_finite(
    output: Tensor,  # of any shape
) -> None:
    """Raise NonFiniteError unless every value is finite."""
    if not bool(output.isfinite().all()):
        raise NonFiniteError
