import sys

from gpu_exporter.cli import main

sys.exit(main())
