"""Django's makemessages, which also finds the help texts of the trainer's settings: `option(default, "help")`."""

from django.core.management.commands import makemessages


class Command(makemessages.Command):
    """See `manage.py help makemessages`."""

    xgettext_options = [*makemessages.Command.xgettext_options, "--keyword=option:2"]
