"""Own images that were brought in: which file, by whom, and what became of each image."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class ImageImport(models.Model):
    """A file or folder of somebody's images."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="image_imports")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    name = models.CharField(max_length=200, help_text="Of the file, as it was called.")
    rater = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="In whose name the file's labels are given.",
    )
    groups = models.PositiveIntegerField(default=0, help_text="That were made.")
    images = models.PositiveIntegerField(default=0, help_text="In them.")
    report = models.JSONField(
        default=list, help_text="An entry a file: [name, outcome, sentence with places, what stands there]."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name


class ImportedImage(models.Model):
    """Where an own image comes from. Its digest, of the prompt and the bytes that came, is what makes it the same one when
    it comes again."""

    generation = models.OneToOneField("labelling.Generation", on_delete=models.CASCADE, related_name="own")
    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="+")
    source = models.ForeignKey(ImageImport, on_delete=models.CASCADE, related_name="kept")
    digest = models.CharField(max_length=64)
    name = models.CharField(max_length=200)
    tool = models.CharField(max_length=40, blank=True, help_text="Whose notes named the prompt.")
    liked = models.BooleanField(null=True, help_text="What the rater says of it, once its group can be rated.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "digest"], name="one_own_image")]
