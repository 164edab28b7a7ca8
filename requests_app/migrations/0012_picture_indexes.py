"""Indexes by which the gallery reads a page and counts without reading all rows."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("requests_app", "0011_own_pictures")]

    # The new ones first: MariaDB keeps an index on the column of a foreign key.
    operations = [
        migrations.AddIndex(
            model_name="imageurl",
            index=models.Index(fields=["image_class", "state", "rank"], name="picture_order"),
        ),
        migrations.AddIndex(
            model_name="imageurl",
            index=models.Index(
                fields=["image_class", "state", "split", "label", "source", "license", "suspect"],
                name="picture_counts",
            ),
        ),
        migrations.RemoveIndex(
            model_name="imageurl",
            name="requests_ap_image_c_b74e03_idx",
        ),
    ]
