from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "webapp.accounts"

    def ready(self):
        """Connects what happens when somebody leaves."""
        from webapp.accounts import leaving  # noqa: F401 - models must be loaded first
