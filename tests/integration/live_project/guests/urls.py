"""One page."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path

from guests.models import Guest


def page(request: HttpRequest) -> HttpResponse:
    """Show who was here."""
    return render(request, "page.html", {"guests": Guest.objects.order_by("pk")})


urlpatterns = [path("", page)]
