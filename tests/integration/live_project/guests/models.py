"""One table, to see that the live server uses the database of the tests."""

from django.db import models


class Guest(models.Model):
    """Somebody who was here."""

    name = models.CharField(max_length=50)
