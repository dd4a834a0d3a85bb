"""What happens before the site accepts requests: data folder, migrations, bundled account."""
