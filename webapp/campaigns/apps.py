from django.apps import AppConfig


class CampaignsConfig(AppConfig):
    name = "webapp.campaigns"

    def ready(self):
        """What the shared reader of prompts says is said in the reader's language."""
        from django.utils.translation import gettext

        from common.language import speak_through

        speak_through(gettext)
