import sys

from gpu_advisor.cli import main

sys.exit(main())
