"""A competition's data on disk: finding and reading it, checking it, and splitting it into folds."""
