"""JSON API of the dashboard at /v1/, with the functions of the pages. See docs/reference/dashboard-api.md."""
