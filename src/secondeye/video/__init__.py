"""Films in and out: the only place that knows PyAV, 8-bit pixels, YUV and containers."""
