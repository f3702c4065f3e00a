"""Convert a monocular film to stereo as a stream: memory use is independent of the film's length."""
