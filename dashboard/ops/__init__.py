"""Operation of an installation. The only package that may import `mms`."""
