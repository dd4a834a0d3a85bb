"""One module per part of the installation that `doctor` checks."""
