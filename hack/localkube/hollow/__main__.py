"""`python -m localkube.hollow` simulates the nodes; see `process`."""

import sys

from localkube.hollow.process import main

if __name__ == "__main__":
    sys.exit(main())
