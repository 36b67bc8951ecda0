"""Django's makemessages with this repository's options, for both catalogs: `manage.py makemessages`.

It also finds the help texts of the trainer's settings: `option(default, "help")`. Translate what is new in
locale/*/LC_MESSAGES/*.po, then compile with `pybabel compile -d locale -D "django djangojs"`; the .mo files are kept in
the repository, so that running it needs neither gettext nor Babel.
"""

from django.core.management.commands import makemessages

IGNORED = ["data", "staticfiles", ".venv", ".venv-*", "tests", "bench", "test-artifacts"]


class Command(makemessages.Command):
    """Every language, both catalogs; no line numbers, which would change with every edit."""

    xgettext_options = [*makemessages.Command.xgettext_options, "--keyword=option:2"]

    def handle(self, *args, **options):
        options |= {"all": True, "no_wrap": True, "no_location": True, "no_obsolete": True}
        options["ignore_patterns"] = [*options["ignore_patterns"], *IGNORED]
        for domain in ("django", "djangojs"):
            super().handle(*args, **{**options, "domain": domain})
