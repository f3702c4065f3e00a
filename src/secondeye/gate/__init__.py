"""The gate: decides which trained parts replace those of the champion model.

The depth estimator is challenged first, then the inpainter, using the winning depth. Champion and challenger
are scored on the held-out clips that the stage `evaluate` has fixed. A challenger wins if its mean gain over
films is above zero at the required confidence and no guardrail (evaluation.guardrails) is violated. With
several challengers for a part, the confidence is corrected for multiple comparisons (Bonferroni). Parts of
the champion that this version of the code cannot load are replaced by those of `bundle.DEFAULT_BUNDLE`.
"""
