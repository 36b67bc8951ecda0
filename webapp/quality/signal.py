"""Signal (`common.signal`) in queries: `Consensus.signal` holds what the rule says of the group's rewards.

Exports that leave labels out ask the rule itself, of the rewards that go out.
"""

from __future__ import annotations

from django.db.models import Q

HAS_SIGNAL = Q(signal=True)  # of rows of Consensus
GROUP_HAS_SIGNAL = Q(consensus__signal=True)  # of groups; those without labels have none
