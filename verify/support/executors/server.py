"""What the server of the processes imports before all else: it only imports and forks, and so has no use for the
collector of cycles, which takes a tenth of torch's import. Each process has it back (see :mod:`processes`), but for
what was imported, which stays: to look through it would take a copy of all of its pages, too."""

import gc

gc.disable()
