"""The page of a run: one self-contained HTML file, made from what lies in the run folder."""
