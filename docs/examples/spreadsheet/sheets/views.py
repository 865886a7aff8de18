from django.shortcuts import get_list_or_404, get_object_or_404, redirect, render
from django.utils.crypto import get_random_string
from django.utils.text import slugify
from django.views.decorators.http import require_POST, require_safe

from .models import COLUMNS, ROWS, TEXT_MAX, Sheet


@require_safe
def index(request):
    return redirect(get_list_or_404(Sheet)[0])


@require_safe
def sheet(request, slug):
    context = {
        "sheet": get_object_or_404(Sheet, slug=slug),
        "sheets": Sheet.objects.all(),
        "columns": COLUMNS,
        "rows": ROWS,
        "text_max": TEXT_MAX,
    }
    return render(request, "sheets/sheet.html", context)


@require_POST
def new(request):
    title = request.POST.get("title", "").strip()[:40] or "Untitled"
    slug = slugify(title)[:40] or "sheet"
    if Sheet.objects.filter(slug=slug).exists():
        slug = f"{slug}-{get_random_string(6).lower()}"
    return redirect(Sheet.objects.create(slug=slug, title=title))
