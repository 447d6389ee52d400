"""``python -m reweight_core`` is the program ``reweight``."""

from reweight_core.cli.main import main

if __name__ == "__main__":
    main()
