"""What 01 checks before anything is trained: every image, every mask, run lengths, orientation."""
