from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("requests_app", "0008_share_link"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="finish_requested",
            field=models.BooleanField(
                default=False, help_text="It is to end early, with what there is."
            ),
        ),
    ]
