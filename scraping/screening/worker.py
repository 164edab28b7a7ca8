"""The program of a screening process."""

import os


def main() -> None:
    """Set up what must be set before the libraries load, then screen until the other side
    closes.
    """
    os.putenv(
        "OPENBLAS_NUM_THREADS", "1"
    )  # its threads spin while they start, half of a worker's start
    from scraping.screening import screen

    screen.work()


if __name__ == "__main__":
    main()
