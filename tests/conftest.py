"""What holds for all tests."""

import signal

# The background of a shell hands down that interrupts are ignored. What tests start would inherit
# that, and some of it they interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
