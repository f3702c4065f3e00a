"""Stereo matching: from a stereo pair to the disparity of the left view."""

from secondeye.matching.interface import Matcher
from secondeye.matching.matchers import make_matcher

__all__ = ["Matcher", "make_matcher"]
