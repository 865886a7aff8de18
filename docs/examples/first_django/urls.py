from django.contrib import admin
from django.urls import path
from proj import views

urlpatterns = [
    path("", views.page),
    path("ticks/", views.ticks),
    path("admin/", admin.site.urls),
]
