"""A monocular film becomes a stereoscopic one. It streams: memory does not grow with the film's length."""
