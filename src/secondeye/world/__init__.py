"""A synthetic world: stereo film whose second view, disparity and occlusions are known exactly."""

from secondeye.world.cards import two_cards
from secondeye.world.render import render_shot
from secondeye.world.shot import Shot

__all__ = ["Shot", "render_shot", "two_cards"]
