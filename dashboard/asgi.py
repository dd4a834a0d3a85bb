"""The ASGI application: plain ASGI parts by path, everything else is Django.

The gateway, the upload and download of files and the MMS API are mounted in front of Django's pages: they need neither
sessions nor templates, and Django would read a whole upload before anybody checked who sends it.
"""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")
application = get_asgi_application()
