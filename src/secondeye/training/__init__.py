"""Training: samples from clips and synthetic shots, one training loop, one module for each model."""
