"""The build, in a mount namespace of its own: `python -m scripts.replay.build SOURCE FOLDER PYTHON`."""

import sys
from pathlib import Path

from scripts.replay.image import build

build(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
