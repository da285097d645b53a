"""Foundations of all rooms: errors, files, the command line, progress bars, threads and processes."""
