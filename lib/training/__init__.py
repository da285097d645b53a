"""Batches, the loss, and the training of one model per fold."""
