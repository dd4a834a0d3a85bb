"""Forms for the settings of a hosting account."""
