"""The version of the project. The build reads it from here."""

__version__ = "0.1.0"
