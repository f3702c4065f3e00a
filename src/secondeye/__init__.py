"""secondeye gives a monocular film its second eye."""

__version__ = "0.1.0"
