"""One file of pixels: decoding an image or a mask, whatever its format."""
