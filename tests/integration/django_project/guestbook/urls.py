"""The paths of the project."""

from django.contrib import admin
from django.urls import path

from guestbook import views

urlpatterns = [
    path("", views.index, name="index"),
    path("admin/", admin.site.urls),
    path("echo/<path:rest>", views.echo, name="echo"),
    path("upload", views.upload),
    path("download", views.download),
    path("events", views.events),
    path("slow", views.slow),
    path("sleep", views.sleep),
    path("where", views.where),
    path("witness/<str:name>", views.witness),
    path("broken", views.broken),
]
