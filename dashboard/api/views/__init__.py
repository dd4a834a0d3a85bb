"""Views of the JSON API, by noun."""
