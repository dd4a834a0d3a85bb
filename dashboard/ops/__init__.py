"""Running an installation; the only package that may import mms."""
