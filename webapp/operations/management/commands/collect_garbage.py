"""Delete files that nobody can need again."""

from datetime import timedelta

from django.core.management.base import BaseCommand

from webapp.operations.garbage import collect


class Command(BaseCommand):
    help = "Delete unrated groups of replaced versions, training states of ended rounds, and files that no row names."

    def add_arguments(self, parser):
        parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
        parser.add_argument("--older-than", type=float, default=7, metavar="DAYS", help="default: 7")

    def handle(self, *args, dry_run, older_than, **options):
        freed = collect(older_than=timedelta(days=older_than), dry_run=dry_run)
        verb = "would delete" if dry_run else "deleted"
        for kind, what in freed.items():
            self.stdout.write(f"{kind}: {verb} {what.files} files, {what.bytes / 1e6:.1f} MB")
