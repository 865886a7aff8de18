from django.db import migrations

ORDER = """
# Seed order, spring
## Plant|## Packs|## Price|## Sum|## Sow in
Broad bean|4|3.20|=B3*C3|March
Chard|2|2.80|=B4*C4|April
Daphne|1|9.50|=B5*C5|September
Lovage|2|3.10|=B6*C6|March
Marigold|6|2.40|=B7*C7|April
Runner bean|3|3.60|=B8*C8|May
Sorrel|2|2.90|=B9*C9|April

Packs in all|=SUM(B3:B9)
On average|||=ROUND(AVERAGE(D3:D9), 2)
Postage|||4.90
## To pay|##|##|## =SUM(D3:D9)+D13
"""


def plant(apps, schema_editor):
    sheets = apps.get_model("sheets", "Sheet").objects
    sheet = sheets.create(slug="seed-order", title="Seed order")
    sheets.create(slug="scratch", title="Scratch")
    for row, line in enumerate(ORDER.strip().splitlines(), 1):
        for column, text in zip("ABCDE", line.split("|"), strict=False):
            if text:
                sheet.cells.create(name=f"{column}{row}", text=text)


class Migration(migrations.Migration):
    dependencies = [("sheets", "0001_initial")]
    operations = [migrations.RunPython(plant, migrations.RunPython.noop)]
