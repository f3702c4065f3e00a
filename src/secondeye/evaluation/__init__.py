"""Scoring of conversion methods on held-out clips; shared by the stage `evaluate` and the gate."""
