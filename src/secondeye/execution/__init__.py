"""Run work: build only what is missing, in processes or on a Ray cluster."""
