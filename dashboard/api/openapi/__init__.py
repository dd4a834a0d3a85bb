"""The OpenAPI document of the JSON API, made from the declarations, forms and types that the API itself uses."""
