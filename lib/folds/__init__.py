"""Folds that do not leak: groups, hidden ones too, duplicates and external images."""
