"""People."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser, UserManager
from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext as _

from webapp.accounts.lookalikes import alike, mixes_scripts
from webapp.lib.prepared import ask


class People(UserManager):
    """Django's, with the query compiled once that tells who makes a request."""

    use_in_migrations = False

    def get(self, *args, **conditions) -> User:
        """As Django's; raises User.DoesNotExist."""
        if args or set(conditions) != {"pk"} or type(conditions["pk"]) is not int:
            return super().get(*args, **conditions)
        found = ask("person", _with_number, user=conditions["pk"])
        if not found:
            raise self.model.DoesNotExist
        return found[0]


class User(AbstractUser):
    """A person. What they may do in a project is their Membership; `is_superuser` may do everything."""

    outside = models.BooleanField(
        default=False,
        db_default=False,
        editable=False,
        help_text="Came by a study's link or another site's log-in: rates as an annotator, and may nothing else.",
    )

    objects = People()

    def clean(self) -> None:
        """Forms, those of the admin too, take no new name that looks like somebody else's."""
        super().clean()
        known = User.objects.filter(pk=self.pk).values_list("username", flat=True).first()
        if self.username == known:
            return
        if mixes_scripts(self.username):
            raise ValidationError({"username": _("Use letters of one script: mixed ones are taken for other letters.")})
        others = User.objects.exclude(pk=self.pk).values_list("username", flat=True)
        if any(alike(self.username, other) for other in others.iterator()):
            raise ValidationError({"username": _("This name looks like that of somebody who is here; choose another.")})


def _with_number(user: int):
    return User.objects.filter(pk=user)
