"""What is chosen on out-of-fold maps: thresholds, morphology, objects."""
