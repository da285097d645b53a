"""The settings: their schema, reading them from YAML and the command line, the formula of the loss."""
