"""The file to upload, and the round trip that proves it."""
