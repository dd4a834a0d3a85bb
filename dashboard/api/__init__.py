"""The JSON API of the dashboard, /v1/: what the pages show and do, for programs with a token. See docs/scripting.md."""
