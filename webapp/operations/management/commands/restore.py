"""Everything from one file."""

from pathlib import Path

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from webapp.operations.backup import BackupError, missing_files, restore, restore_one


class Command(BaseCommand):
    help = "Restore a back-up into an empty database and data folder, then migrate. Start the other parts afterwards."

    def add_arguments(self, parser):
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--only", metavar="NAME", help="bring back this one file, such as media/projects/1/groups/2/3.webp"
        )

    def handle(self, *args, file, only, **options):
        try:
            if only:
                restore_one(file, only)
                self.stdout.write(f"{only} is as it was in {file}")
                return
            counts = restore(file)
        except BackupError as error:
            raise CommandError(str(error)) from error
        call_command("migrate", interactive=False, verbosity=0)
        files = ", ".join(f"{n} files of {folder}" for folder, n in counts.items())
        self.stdout.write(f"{file}: the database, {files}")
        if missing := missing_files():
            self.stderr.write(f"{len(missing)} files were missing already in the back-up, the first is {missing[0]}")
