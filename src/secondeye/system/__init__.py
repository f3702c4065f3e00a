"""The operating system: errors for users, processes, files, disk space, text."""
