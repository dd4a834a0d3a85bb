"""The OpenAPI document, and a page made from it."""
