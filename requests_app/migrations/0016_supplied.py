"""What a person brings along with a request."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("requests_app", "0015_pth_and_recipe")]

    operations = [
        migrations.AddField(
            model_name="classifierrequest",
            name="supplied",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="What the person brought along: pictures, addresses, as_test, alone, unused.",
            ),
        ),
    ]
