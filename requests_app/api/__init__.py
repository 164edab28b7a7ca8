"""The API: the same rules and steps as the pages, for programs."""
