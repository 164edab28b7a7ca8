"""The dataset of GBIF that a picture belongs to; those found before have none."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("requests_app", "0013_api_keys")]

    operations = [
        migrations.AddField(
            model_name="imageurl",
            name="dataset_key",
            field=models.CharField(
                blank=True, default="", help_text="Of GBIF, as its terms ask.", max_length=36
            ),
        ),
    ]
