"""Masks as such: run lengths, metrics, morphology, components, objects and the statistics of scores."""
