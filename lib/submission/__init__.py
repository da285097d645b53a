"""The files to upload, in every format, and the round trip that proves them."""
