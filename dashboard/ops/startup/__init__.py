"""Steps before the site accepts requests: data directory, migrations, static files, bundled account."""
