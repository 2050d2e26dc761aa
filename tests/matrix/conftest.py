"""The matrix's own modules can be imported by their names, here as in the script for other environments."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
