"""What every room stands on: errors, files, the command line, progress bars, threads and processes."""
