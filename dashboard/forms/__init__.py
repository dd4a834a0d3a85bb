"""One form per verb."""
