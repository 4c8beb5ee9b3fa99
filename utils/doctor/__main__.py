import sys

from utils.doctor.report import main

sys.exit(main())
