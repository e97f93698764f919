"""Networks in tests are tiny: threads cost them more than they give, most of all beside other tests."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
