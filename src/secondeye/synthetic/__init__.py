"""Synthetic stereo video with exactly known second view, disparity and occlusion."""

from secondeye.synthetic.render import render_shot
from secondeye.synthetic.shot import Shot
from secondeye.synthetic.two_planes import two_planes

__all__ = ["Shot", "render_shot", "two_planes"]
