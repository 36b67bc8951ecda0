from django.apps import AppConfig


class RatersConfig(AppConfig):
    name = "webapp.raters"
    verbose_name = "Raters from outside"
