from django.contrib.auth.views import LoginView
from django.urls import path

from . import views
from .consumers import RoomConsumer

urlpatterns = [
    path("", views.index, name="index"),
    path("new/", views.new, name="new"),
    path("rooms/<slug:slug>/", views.room, name="room"),
    path("join/", views.Join.as_view(), name="join"),
    path("sign-in/", LoginView.as_view(redirect_authenticated_user=True), name="sign-in"),
    path("sign-out/", views.SignOut.as_view(), name="sign-out"),
]
websocket_urlpatterns = [path("ws/rooms/<slug:slug>/", RoomConsumer.as_asgi())]
