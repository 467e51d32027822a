"""Where the trainer is: in the folder ``finetune`` at the top of the checkout.

In a wheel the trainer itself has this place, because the name ``finetune`` in site-packages
belongs to nobody. This file is not in it; it makes ``u2net_human_plugin.finetune`` mean the
same in a checkout and in an editable install.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parents[2] / "finetune")]
