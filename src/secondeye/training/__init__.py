"""Training: data drawn from clips and the synthetic world, one loop, one module per model."""
