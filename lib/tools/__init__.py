"""Commands beside the five scripts: python -m lib.tools.NAME."""
