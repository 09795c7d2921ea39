"""`python -m gpuconvert` is the command `gpuconvert`."""

from gpuconvert.cli import main

if __name__ == "__main__":
    main()
