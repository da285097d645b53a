"""The run folder: its paths, its lock, and the records of what each file was made from."""
