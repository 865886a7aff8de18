from django.db import migrations

ROOMS = [
    ("garden", "Garden", "What grows, what does not, and who ate it"),
    ("kitchen", "Kitchen", "Forty courgettes: ideas welcome"),
    ("shed", "Shed", "Tools lent and tools missed"),
]


def build(apps, schema_editor):
    rooms = apps.get_model("rooms", "Room").objects
    for slug, name, topic in ROOMS:
        rooms.create(slug=slug, name=name, topic=topic)


class Migration(migrations.Migration):
    dependencies = [("rooms", "0001_initial")]
    operations = [migrations.RunPython(build, migrations.RunPython.noop)]
