"""A small Django project: a guest book with an admin, and views for everything that a server must carry."""
