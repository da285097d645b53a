"""What a batch is, what is minimised, and the training of one model per fold."""
