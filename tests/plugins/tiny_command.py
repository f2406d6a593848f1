"""`python tiny_command.py ...` is `python -m train ...` with the tiny network in the table, for schedulers to start.

With JAXCNN_TESTS_PAUSE every step takes so many seconds longer, so that there is time to interrupt the run.
"""

import os
import time

from phantoms import keep_drawn
from tiny import TINY

from jaxcnn.models import MODELS
from train.__main__ import main
from train.machine.interruption import Interruption


def poll_slowly(self, poll=Interruption.poll):
    time.sleep(float(os.environ.get("JAXCNN_TESTS_PAUSE", "0")))
    return poll(self)


Interruption.poll = poll_slowly
MODELS["tiny"] = TINY
keep_drawn()
main()
