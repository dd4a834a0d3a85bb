"""Commands for tokens of the bundled server."""
