from django.urls import path

from . import views
from .consumers import SheetConsumer

urlpatterns = [
    path("", views.index, name="index"),
    path("new/", views.new, name="new"),
    path("sheets/<slug:slug>/", views.sheet, name="sheet"),
]
websocket_urlpatterns = [path("ws/sheets/<slug:slug>/", SheetConsumer.as_asgi())]
