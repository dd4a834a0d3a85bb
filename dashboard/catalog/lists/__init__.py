"""Definitions of the lists of an account: rows, columns, searched fields and filters, for the pages and the API."""
