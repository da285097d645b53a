"""The run folder: its paths, its lock, and what each file in it was made from."""
