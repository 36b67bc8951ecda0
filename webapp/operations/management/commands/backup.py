"""Everything into one file."""

from pathlib import Path

from django.core.management.base import BaseCommand, CommandError

from webapp.operations.backup import BackupError, back_up


class Command(BaseCommand):
    help = "Write the database, images, trajectories, versions and checkpoints to one tar file. Everything may run on."

    def add_arguments(self, parser):
        parser.add_argument("file", type=Path)

    def handle(self, *args, file, **options):
        try:
            counts = back_up(file)
        except BackupError as error:
            raise CommandError(str(error)) from error
        files = ", ".join(f"{n} files of {folder}" for folder, n in counts.items())
        self.stdout.write(f"{file}: the database, {files}")
