"""Own images of any number into a project, without the browser."""

from collections import Counter
from pathlib import Path

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from common.archives import members_of_folder, members_of_zip
from common.intake import kind
from webapp.campaigns.models import Project
from webapp.imports import rows, services
from webapp.imports.reading import Bunch, Choices, Reader
from webapp.imports.report import Line


class Command(BaseCommand):
    help = "Bring own images into a project: a folder, an archive (ZIP) or a table with the images inside (Parquet, JSONL)."

    def add_arguments(self, parser):
        parser.add_argument("project", help="its address, for example sd35")
        parser.add_argument("path", type=Path, help="folder, archive or table")
        parser.add_argument("--prompt", default="", help="of images that bring none")
        parser.add_argument("--generate", action="store_true", help="make new images of new prompts too")
        parser.add_argument("--rater", default="", help="whose a table's labels are; without it they are left out")
        parser.add_argument("--admin", default="admin", help="who brings them in (default: %(default)s)")

    def handle(self, *args, project, path, prompt, generate, rater, admin, **options):
        found = Project.objects.filter(slug=project).first()
        if found is None:
            raise CommandError(f"project: there is none at {project!r}")
        if not path.exists():
            raise CommandError(f"path: there is no {path}")
        by = get_user_model().objects.filter(username=admin).first()
        choices = Choices(prompt=prompt, generate=generate, rater=rater.strip())
        try:
            done = services.bring_in(
                found, path.name, lambda reader: self._read(reader, path), choices=choices, by=by, bounded=False
            )
        except (services.ImagesError, OSError) as error:
            raise CommandError(str(error)) from error
        lines = [Line.from_json(value) for value in done.report]
        for line in lines:
            if options["verbosity"] > 1 or line.outcome in ("left", "skipped"):
                self.stdout.write(f"{line.name}: {line.word}. {line.sentence}")
        counts = Counter(str(line.outcome) for line in lines)
        self.stdout.write(
            f"{done.groups} groups of {done.images} images; there already: {counts['known']}, left over: {counts['left']}, "
            f"passed over: {counts['skipped']}"
        )

    def _read(self, reader: Reader, path: Path) -> list[Bunch]:
        if path.is_dir():
            return reader.read(members_of_folder(path))
        with path.open("rb") as file:
            found = kind(file.read(4096))
            if found == "ZIP":
                return reader.read(members_of_zip(file))
        return rows.read(reader, path.read_bytes(), path.name, labels=bool(reader.choices.rater))
