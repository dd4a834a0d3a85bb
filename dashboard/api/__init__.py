"""JSON API of the dashboard at /v1/: what the pages show and do, for programs. See docs/reference/dashboard-api.md."""
