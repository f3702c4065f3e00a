"""How well a model makes the second eye, on held-out clips; the stage `evaluate` and the gate share it."""
