"""The demo's project and its two accounts; running it again changes nothing."""

import json
import os
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from common.settings import DEMO_ROUND
from webapp.campaigns.models import Membership, Project, Role
from webapp.campaigns.services import CampaignError, create_project, ensure_user
from webapp.labelling.generation import top_up
from webapp.rounds.adoption import adopt_round
from webapp.rounds.services import RoundError

GUIDELINES = "Like an image when it shows just what the prompt says, with clean shapes. Dislike it otherwise."
ACCOUNTS = (
    ("admin", Role.ADMIN, "LIKESTEP_ADMIN_PASSWORD"),
    ("annotator", Role.ANNOTATOR, "LIKESTEP_ANNOTATOR_PASSWORD"),
)


class Command(BaseCommand):
    help = "Create the demo project with an admin and, where it has a password in the environment, an annotator."

    def add_arguments(self, parser):
        parser.add_argument("--prompts", type=Path, default=settings.LIKESTEP_MODEL_DIR / "prompts.json")
        parser.add_argument("--slug", default="demo")
        parser.add_argument("--group-size", type=int, default=8)
        parser.add_argument(
            "--after",
            type=Path,
            default=settings.LIKESTEP_STUDENT_DIR.with_name("demo-after"),
            help="a round of the demo model to show as the project's first, if the folder is there",
        )
        parser.add_argument(
            "--round-settings",
            default=os.environ.get("LIKESTEP_ROUND_SETTINGS") or "{}",
            help="JSON of round settings that differ from the demo's own",
        )

    def handle(self, *args, prompts, slug, group_size, after, round_settings, **options):
        try:
            chosen = DEMO_ROUND | json.loads(round_settings)
        except (json.JSONDecodeError, TypeError) as error:
            raise CommandError(f"--round-settings: give a JSON object ({error})") from error
        people = {}
        for name, role, variable in ACCOUNTS:
            password = os.environ.get(variable, "")
            if not get_user_model().objects.filter(username=name).exists():
                if not password and role == Role.ANNOTATOR:
                    continue
                if len(password) < 8:
                    raise CommandError(f"{variable}: set a password of at least 8 characters")
                ensure_user(name, password)
            people[name] = role
        project = Project.objects.filter(slug=slug).first()
        if project is None:
            try:
                project = create_project(
                    slug,
                    "Drawn scenes",
                    model_dir=str(settings.LIKESTEP_MODEL_DIR),
                    student_dir=str(settings.LIKESTEP_STUDENT_DIR),
                    prompts=json.loads(prompts.read_text()),
                    group_size=group_size,
                    oracle="demo",
                    guidelines=GUIDELINES,
                    round_settings=chosen,
                )
            except (OSError, CampaignError, json.JSONDecodeError) as error:
                raise CommandError(f"prompts: {prompts} cannot be used: {error}") from error
            if after.is_dir():
                try:
                    adopt_round(project, after)
                except RoundError as error:
                    raise CommandError(str(error)) from error
        for name, role in people.items():
            user = get_user_model().objects.get(username=name)
            Membership.objects.get_or_create(user=user, project=project, defaults={"role": role})
        queued = top_up(project.pk)
        self.stdout.write(f"project {project.slug}: {project.prompts.count()} prompts, {len(queued)} groups queued")
