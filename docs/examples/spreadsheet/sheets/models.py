from django.db import models, transaction
from django.urls import reverse

COLUMNS = "ABCDEFGHIJ"
ROWS = range(1, 41)
CELL = r"[A-J]([1-9]|[1-3][0-9]|40)"
TEXT_MAX = 200


class Sheet(models.Model):
    slug = models.SlugField(unique=True)
    title = models.CharField(max_length=40)
    revision = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering = ["pk"]

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("sheet", args=[self.slug])

    @transaction.atomic
    def snapshot(self):
        """Return the revision, and the text of every cell that is not empty as of then."""
        self.refresh_from_db()
        return self.revision, dict(self.cells.values_list("name", "text"))

    @transaction.atomic
    def write(self, name, text):
        """Set a cell, and return the revision that this makes: the last one to write wins."""
        locked = Sheet.objects.select_for_update().get(pk=self.pk)
        locked.revision += 1
        locked.save(update_fields=["revision"])
        if text:
            locked.cells.update_or_create(name=name, defaults={"text": text})
        else:
            locked.cells.filter(name=name).delete()
        return locked.revision


class Cell(models.Model):
    sheet = models.ForeignKey(Sheet, models.CASCADE, related_name="cells")
    name = models.CharField(max_length=3)
    text = models.CharField(max_length=TEXT_MAX)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["sheet", "name"], name="one_text_per_cell")]

    def __str__(self):
        return f"{self.name}: {self.text}"
