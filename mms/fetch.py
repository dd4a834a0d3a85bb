"""Fetching and unpacking what people name by URL, safely."""
