import sys

from utils.evaluate.cli import main

sys.exit(main())
