"""Convert 2D film to stereoscopic 3D, and build, train and evaluate the model that does it."""

__version__ = "0.1.0"
