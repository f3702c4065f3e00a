"""What MLflow remembers: runs, mirrored from their folders, and the registered model."""
