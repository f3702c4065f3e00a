"""A synthetic world: stereo film whose second view, disparity and occlusions are known exactly."""

from secondeye.synthetic.render import render_shot
from secondeye.synthetic.shot import Shot
from secondeye.synthetic.two_planes import two_planes

__all__ = ["Shot", "render_shot", "two_planes"]
