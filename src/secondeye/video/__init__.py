"""Read and write films: the only package that knows PyAV, YUV and containers."""
