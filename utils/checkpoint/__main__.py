import sys

from utils.checkpoint.cli import main

sys.exit(main())
