"""The OpenAPI document of the JSON API, generated from the declarations, forms and types that the API uses."""
