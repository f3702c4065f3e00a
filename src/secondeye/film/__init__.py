"""Analyse a film: cuts, shots, letterbox, frame checks, and how two views are packed in one frame."""
