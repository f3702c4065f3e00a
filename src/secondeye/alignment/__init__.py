"""Stereo alignment: offset, vertical error, colour, view order, sync."""
