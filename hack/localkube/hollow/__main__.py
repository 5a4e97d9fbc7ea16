"""`python -m localkube.hollow` plays the nodes; see `process`."""

import sys

from localkube.hollow.process import main

if __name__ == "__main__":
    sys.exit(main())
