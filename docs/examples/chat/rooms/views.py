from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.views import LogoutView
from django.shortcuts import get_list_or_404, get_object_or_404, redirect, render
from django.urls import reverse_lazy
from django.utils.crypto import get_random_string
from django.utils.text import slugify
from django.views.decorators.http import require_POST, require_safe
from django.views.generic import FormView

from .consumers import group_of_user
from .models import TEXT_MAX, Room


@require_safe
@login_required
def index(request):
    return redirect(get_list_or_404(Room)[0])


@require_safe
@login_required
def room(request, slug):
    context = {"room": get_object_or_404(Room, slug=slug), "rooms": Room.objects.all(), "text_max": TEXT_MAX}
    return render(request, "rooms/room.html", context)


@require_POST
@login_required
def new(request):
    name = request.POST.get("name", "").strip()[:40] or "Untitled"
    slug = slugify(name)[:40] or "room"
    if Room.objects.filter(slug=slug).exists():
        slug = f"{slug}-{get_random_string(6).lower()}"
    return redirect(Room.objects.create(slug=slug, name=name))


class JoinForm(UserCreationForm):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["username"].help_text = ""
        self.fields["password1"].help_text = "At least 8 characters."
        self.fields["password2"].help_text = ""
        self.fields["password2"].label = "Password again"


class Join(FormView):
    form_class = JoinForm
    template_name = "registration/join.html"
    success_url = reverse_lazy("index")

    def form_valid(self, form):
        login(self.request, form.save())
        return super().form_valid(form)


class SignOut(LogoutView):
    """Ends the session, then tells the user's tabs: those that belong to it do not get in again."""

    def post(self, request, *args, **kwargs):
        user = request.user
        response = super().post(request, *args, **kwargs)
        if user.is_authenticated:
            async_to_sync(get_channel_layer().group_send)(group_of_user(user), {"type": "signed.out"})
        return response
