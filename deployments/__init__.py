"""The model lifecycle, at any MMS."""
