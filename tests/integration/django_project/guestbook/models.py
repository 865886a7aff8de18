"""The one table."""

from django.db import models


class Entry(models.Model):
    """What a guest wrote."""

    name = models.CharField(max_length=50)
    text = models.TextField()
    written = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "entries"

    def __str__(self) -> str:
        return self.name
