"""`twm`: everything the UI can do, scriptable.

Exit codes: 0 it worked · 1 it did not, and may later · 2 the command was misspelt · 3 a setting, a
credential or a permission has to be changed first · 130 and 143 interrupted.
"""


def main() -> None:
    """Run `twm`."""
    from twm_pipeline.cli.app import main as run  # noqa: PLC0415 - child processes need no command line

    run()
