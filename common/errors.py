"""Input errors: the exception for a value that the user can correct.

Raising a plain ValueError would have been simpler, but then `main.py` could not distinguish a user's mistake
(one line, exit status 2) from a defect of this project (a traceback).
"""


class InputError(ValueError):
    """Input that cannot work: one line with the value, the rule it breaks and the fix."""
