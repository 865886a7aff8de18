from datetime import timedelta

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

TEXT_MAX = 2000
HISTORY = 50
GONE = timedelta(seconds=150)
"""A tab that has been silent for longer is gone: its process may have been killed."""


class Room(models.Model):
    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=40)
    topic = models.CharField(max_length=120, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        return reverse("room", args=[self.slug])

    async def history(self):
        """Return the last messages, oldest first."""
        last = self.messages.select_related("author").order_by("-pk")[:HISTORY]
        return [message.as_json() async for message in last][::-1]

    async def people(self):
        """Return the names of those who are here, each once however many tabs they have."""
        here = self.tabs.filter(seen_at__gt=timezone.now() - GONE)
        names = here.order_by("user__username").values_list("user__username", flat=True).distinct()
        return [name async for name in names]


class Message(models.Model):
    room = models.ForeignKey(Room, models.CASCADE, related_name="messages")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    text = models.CharField(max_length=TEXT_MAX)
    sent_at = models.DateTimeField(auto_now_add=True)
    key = models.CharField(max_length=40)
    """Made by the page, so that a message that it sends again after a broken connection is not said twice."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["author", "key"], name="said_once")]

    def __str__(self):
        return f"{self.author}: {self.text}"

    def as_json(self):
        return {
            "id": self.pk,
            "author": self.author.username,
            "text": self.text,
            "sent_at": self.sent_at.isoformat(),
            "key": self.key,
        }


class Tab(models.Model):
    """One open page. In the database rather than in memory, so that all processes know who is online."""

    room = models.ForeignKey(Room, models.CASCADE, related_name="tabs")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    channel = models.CharField(max_length=100, unique=True)
    seen_at = models.DateTimeField(auto_now=True)

    def __str__(self):
        return f"{self.user} in {self.room}"
