"""Errors for users, files, disk space, processes and text."""
