"""Foundations of all packages: errors, files, the command line, progress bars, threads and processes."""
