import sys

from utils.viewer.cli import main

sys.exit(main())
