"""One module per part of the installation that the doctor checks."""
