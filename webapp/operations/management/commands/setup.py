"""What must be done before the parts start; running it again changes nothing."""

import os

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from webapp.campaigns.services import CampaignError, ensure_superuser
from webapp.operations.services import migrate


class Command(BaseCommand):
    help = (
        "Migrate the database, make the first superuser `admin` with LIKESTEP_ADMIN_PASSWORD, "
        "and make the demo project unless LIKESTEP_DEMO_PROJECT=0."
    )

    def handle(self, *args, **options):
        migrate()
        self.stdout.write("the database is up to date")
        try:
            if ensure_superuser("admin", os.environ.get("LIKESTEP_ADMIN_PASSWORD", "")):
                self.stdout.write("account admin made")
        except CampaignError as error:
            raise CommandError(f"LIKESTEP_ADMIN_PASSWORD: {error}") from error
        if os.environ.get("LIKESTEP_DEMO_PROJECT", "").strip() != "0":
            call_command("seed_demo", stdout=self.stdout)
