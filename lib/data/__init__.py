"""A competition's data on disk: which images, masks, tables and groups there are, under which ids."""
