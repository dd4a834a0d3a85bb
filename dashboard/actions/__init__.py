"""Actions that a page and the API share."""
