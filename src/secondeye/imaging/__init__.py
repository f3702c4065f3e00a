"""Array conventions and conversions, optical flow, and the choice of a compute backend."""
