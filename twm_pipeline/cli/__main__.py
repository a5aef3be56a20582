"""`python -m twm_pipeline.cli`: the same as `twm`."""

from twm_pipeline.cli import main

if __name__ == "__main__":
    main()
