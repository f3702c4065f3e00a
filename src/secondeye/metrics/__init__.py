"""Metrics: image quality, perceptual and learned similarity, stereo, temporal stability, depth, holes."""
