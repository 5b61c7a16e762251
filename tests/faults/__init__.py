# SPDX-License-Identifier: GPL-2.0-only
"""What may go wrong with a machine of the lab: a file of cases for each stage."""

from __future__ import annotations

from faults.boot import BOOT
from faults.check import CHECK
from faults.collect import COLLECT
from faults.deploy import DEPLOY
from faults.health import HEALTH
from faults.home import HOME
from faults.look import LOOK
from faults.rehearsal import REHEARSAL
from faults.watched import WATCHED

ON_ONE_MACHINE = (*LOOK, *HEALTH, *REHEARSAL, *DEPLOY, *BOOT, *CHECK, *COLLECT, *HOME)
FAULTS = (*ON_ONE_MACHINE, *WATCHED)
