"""The program in every image: calls the driver's `run()` behind a small HTTP server.

It is copied into images as the package `scoring`, so it imports nothing from this project, and besides the standard
library only the packages in its requirements.txt. An image runs the copy that it was built with, so the environment
variables in `settings.py`, the paths of the HTTP server and the exit statuses must stay compatible.
"""
