"""What is used where nothing is named; in a module of its own because the command line must not load more for it."""

DEFAULT_MODEL = "ham10000-trio"
