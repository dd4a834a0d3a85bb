"""Realistic rows for work on pages: an installation with three hosting accounts, written without building anything."""
