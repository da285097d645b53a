"""The choices made on out-of-fold maps: thresholds, morphology, objects."""
