"""`python -m posttrain`, for torchrun and accelerate launch."""

from posttrain.cli import main

if __name__ == "__main__":
    main()
