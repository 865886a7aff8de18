from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import JsonResponse
from django.urls import path

from daphne_ng import stopping

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="only an example")


def poll(request):
    ended = stopping.wait_stopping_in_thread(timeout=30)
    return JsonResponse({"news": None, "ask": "elsewhere" if ended else "again"})


urlpatterns = [path("poll", poll)]
application = get_asgi_application()
