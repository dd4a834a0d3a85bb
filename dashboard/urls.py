"""The whole site on one screen. Names are the verbs and nouns of the reference; /accounts/<account>/ is the prefix."""

urlpatterns: list = []
