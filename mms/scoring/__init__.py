"""The program inside every image: calls the driver's `run()` behind a small HTTP server.

It is copied into images as the package `scoring`, so it imports nothing of this project, and beside the standard
library only what its requirements.txt names.
"""
