"""A project of one's own model without the browser."""

import json
from pathlib import Path

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from common import prompt_files
from common.cards import LORA_NAME
from webapp.campaigns.models import LabelSource
from webapp.campaigns.services import CampaignError, create_project, prompt_check
from webapp.labelling.generation import top_up
from webapp.rounds.services import RoundError, check_settings


class Command(BaseCommand):
    help = (
        "Make a project from a model folder, a few-step LoRA and a prompt file; nothing when one of them is not usable."
    )

    def add_arguments(self, parser):
        parser.add_argument("slug", help="its address, for example sd35")
        parser.add_argument("--name", help="the slug by default")
        parser.add_argument("--model", type=Path, required=True, help="folder of a diffusers pipeline")
        parser.add_argument("--student", type=Path, required=True, help="folder of the first few-step LoRA")
        parser.add_argument("--prompts", type=Path, required=True, help="text, CSV, JSONL or Parquet")
        parser.add_argument("--prompt-column", default="prompt", help="(default: %(default)s)")
        parser.add_argument("--validation-share", type=float, default=0.1, help="(default: %(default)s)")
        parser.add_argument("--admin", default="admin", help="who runs it (default: %(default)s)")
        parser.add_argument("--group-size", type=int, default=8, help="images of a prompt (default: %(default)s)")
        parser.add_argument("--oracle", default="", help="a name of LIKESTEP_ORACLES")
        parser.add_argument("--label-source", default=LabelSource.PEOPLE, choices=LabelSource.values)
        parser.add_argument(
            "--auto-start-after", type=int, default=0, help="labelled groups till a round starts; 0: never"
        )
        parser.add_argument("--ready-target", type=int, default=6, help="unrated groups to keep (default: %(default)s)")
        parser.add_argument(
            "--round-settings", default="{}", help="JSON of round settings that differ from the defaults"
        )

    def handle(self, *args, slug, model, student, prompts, round_settings, **o):
        for option, file in (("--model", model / "model_index.json"), ("--student", student / LORA_NAME)):
            if not file.is_file():
                raise CommandError(f"{option}: there is no {file}")
        admin = get_user_model().objects.filter(username=o["admin"]).first()
        if admin is None:
            raise CommandError(f"--admin: there is no account {o['admin']!r}; run manage.py setup first")
        try:
            text = prompt_files.decode(prompts.read_bytes(), prompts.name, most=None)
            parsed = prompt_files.parse(
                text,
                name=prompts.name,
                validation=o["validation_share"],
                columns={"prompt": o["prompt_column"]},
                check=prompt_check(o["oracle"]),
                model=model,
            )
            if parsed.errors:
                raise CampaignError("; ".join(str(problem) for problem in parsed.errors[:5]))
            chosen = json.loads(round_settings)
            if not isinstance(chosen, dict):
                raise CampaignError("--round-settings: give a JSON object")
            check_settings(chosen)
            project = create_project(
                slug,
                o["name"] or slug,
                model_dir=str(model.resolve()),
                student_dir=str(student.resolve()),
                prompts=[row.plain() for row in parsed.rows],
                by=admin,
                group_size=o["group_size"],
                oracle=o["oracle"],
                label_source=o["label_source"],
                auto_start_after=o["auto_start_after"],
                ready_target=o["ready_target"],
                round_settings=chosen,
            )
        except (OSError, CampaignError, RoundError, ValueError) as error:
            raise CommandError(str(error)) from error
        for problem in (*parsed.left_out, *parsed.cut):
            self.stdout.write(f"{prompts.name}, {problem}")
        queued = top_up(project.pk)
        counts = ", ".join(f"{n} {split}" for split, n in parsed.splits().items() if n)
        self.stdout.write(f"project {slug}: {counts} prompts; {len(queued)} groups queued")
