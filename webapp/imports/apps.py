from django.apps import AppConfig


class ImportsConfig(AppConfig):
    name = "webapp.imports"
    verbose_name = "Imports"
