"""Publish run folders to MLflow and manage the registered model."""
