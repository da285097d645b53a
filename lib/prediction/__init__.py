"""From networks to probability maps of whole images, and ensembles of maps."""
