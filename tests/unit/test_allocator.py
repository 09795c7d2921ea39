import subprocess
import sys

CODE = """
import resource, sys
import numpy as np
from gpuconvert.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
np.ones(2**22)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    np.ones(2**21)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(word):
    done = subprocess.run(
        [sys.executable, "-c", CODE, word], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_freed_blocks_are_used_again_without_page_faults():
    assert _faults("kept") < 0.1 * _faults("as it is")
