#!/usr/bin/env python
"""Command line of the site, from a checkout. `python manage.py help` lists the commands."""

from dashboard.__main__ import main

if __name__ == "__main__":
    main()
